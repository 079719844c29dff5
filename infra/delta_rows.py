"""Stream the sequences of a Delta table at a pinned version: the chunks that a training reads.

The log is read by `deltalake`, the Parquet files by pyarrow, row group by row group, which the
table readers of neither offer. So what else a table may ask of its readers is done here (deletion
vectors) or refused (column mapping, and what is not known).

A chunk is one or more parts of row groups; a group of more than `chunk_rows` rows is cut into
equal parts. A part is decoded from its group's beginning, because pyarrow cannot skip rows: where
groups are many times larger than a chunk, write the table with smaller ones. Those of the
sessions of `infra.spark` are of 16 MiB (`parquet.block.size`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from infra.errors import UserError
from infra.lake_files import data_paths, open_delta, opened_file
from infra.lake_location import Folder
from infra.settings import folder_of
from ml.features import ROW_ORDER, SEQUENCE_COLUMNS, BoolArray, IntArray, SequenceData
from ml.row_chunks import RowsReference

# Shapes: R rows of a chunk.
COUNT_COLUMNS = ("num_events", "num_targets")
_WITHIN_SPLIT = [(name, "ascending") for name in ROW_ORDER if name != "split"]
_HANDLED = {"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_MAPPING = "delta.columnMapping.mode"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Name consecutive rows of a row group.

    Attributes:
        path: Data file, relative to the table.
        row_group: Row group of the file.
        start: First row, counted within the row group.
        stop: Row after the last.
        first: Row of the file at which the row group begins.
    """

    path: str
    row_group: int
    start: int
    stop: int
    first: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunk:
    """Name the parts of a chunk, with what is known of its rows, sorted; [R] each."""

    parts: tuple[_Part, ...]
    lengths: IntArray
    targets: IntArray


class DeltaRows:
    """Give the rows of one split of a sequences table, chunk by chunk.

    Files come in the order of their first rows, whatever their names, and rows of a chunk in that
    of `SequenceData.from_arrow`: tables that were written alike give the same chunks.
    """

    def __init__(self, folder: Folder, *, version: int, split: str, chunk_rows: int) -> None:
        """Read how many events and targets each row has; no event is read yet.

        Args:
            folder: Folder of the table.
            version: Version of the table.
            split: The split.
            chunk_rows: Rows of a chunk at most, those of other splits beside them included.

        Raises:
            UserError: If the table asks for what its readers here cannot do.
            ValueError: If a column is missing or holds a null.
        """
        self._folder, self._split = folder, split
        opened = open_delta(folder, version=version)
        _refuse_unknown_features(opened)
        self._kept = _kept_rows(opened)
        self._chunks: list[_Chunk] = []
        gathered: list[tuple[_Part, pa.Table]] = []
        for part, counts in self._counted_parts(data_paths(opened), chunk_rows):
            rows = sum(other.stop - other.start for other, _ in gathered)
            if rows and rows + part.stop - part.start > chunk_rows:
                self._chunks.append(_chunk(gathered))
                gathered = []
            gathered.append((part, counts))
        if gathered:
            self._chunks.append(_chunk(gathered))

    @property
    def num_chunks(self) -> int:
        """Return the number of chunks."""
        return len(self._chunks)

    def lengths(self, chunk: int) -> IntArray:
        """Return the events of each row of a chunk, [R]."""
        return self._chunks[chunk].lengths

    def targets(self, chunk: int) -> IntArray:
        """Return the target events of each row of a chunk, [R]."""
        return self._chunks[chunk].targets

    def read(self, chunk: int) -> SequenceData:
        """Read the rows of a chunk, in the order of `lengths`."""
        found = []
        for part in self._chunks[chunk].parts:
            with opened_file(self._folder, part.path) as source:
                file = pq.ParquetFile(source, coerce_int96_timestamp_unit="us")
                rows = _part_rows(file, part, SEQUENCE_COLUMNS)
            found.append(self._of_split(rows, part))
        return SequenceData.from_arrow(pa.concat_tables(found))

    def _counted_parts(self, paths: list[str], chunk_rows: int) -> list[tuple[_Part, pa.Table]]:
        """Return the parts that hold rows of the split, and what these are counted and sorted by.

        Files are named at random, so their rows say which is first.
        """
        files = [list(self._parts_of(path, chunk_rows)) for path in paths]
        return list(chain.from_iterable(sorted(filter(None, files), key=_first_row)))

    def _parts_of(self, path: str, chunk_rows: int) -> Iterator[tuple[_Part, pa.Table]]:
        """Yield the parts of a file that hold rows of the split."""
        with opened_file(self._folder, path) as source:
            file = pq.ParquetFile(source)
            _require(file, path)
            first = 0
            for row_group in range(file.num_row_groups):
                counts = file.read_row_group(row_group, columns=[*ROW_ORDER, *COUNT_COLUMNS])
                pieces = max(1, -(-len(counts) // chunk_rows))
                edges = np.arange(pieces + 1) * len(counts) // pieces
                for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                    part = _Part(
                        path=path, row_group=row_group, start=start, stop=stop, first=first
                    )
                    own = self._of_split(counts.slice(start, stop - start), part)
                    if len(own):
                        yield part, own.drop_columns("split")
                first += len(counts)

    def _of_split(self, rows: pa.Table, part: _Part) -> pa.Table:
        """Return the rows of a part that are of the split and were not deleted."""
        kept = pc.equal(rows["split"], self._split)  # pyright: ignore[reportAttributeAccessIssue]
        vector = self._kept.get(part.path)
        if vector is not None:
            alive = np.ones(len(rows), bool)
            told = vector[part.first + part.start : part.first + part.stop]
            alive[: len(told)] = told
            kept = pc.and_(kept, pa.array(alive))  # pyright: ignore[reportAttributeAccessIssue]
        return rows.filter(kept)


def open_rows(reference: RowsReference) -> DeltaRows:
    """Open the rows that a training streams; an object store's credentials are variables.

    Raises:
        UserError: If the table asks for what its readers here cannot do.
    """
    return DeltaRows(
        folder_of(reference.uri),
        version=reference.version,
        split=reference.split,
        chunk_rows=reference.chunk_rows,
    )


def _refuse_unknown_features(opened: DeltaTable) -> None:
    """Stop if reading the data files as they are would give other rows or columns.

    Raises:
        UserError: Naming what the table asks for.
    """
    asked = set(opened.protocol().reader_features or ()) - _HANDLED
    if opened.metadata().configuration.get(_MAPPING) in (None, "none"):
        asked.discard("columnMapping")
    else:
        asked.add("columnMapping")
    if asked:
        features = ", ".join(sorted(asked))
        raise UserError(
            f"the rows of {opened.table_uri} cannot be streamed: it uses {features}",
            remedy="write it without, or use a recipe whose rows are not streamed",
        )


def _kept_rows(opened: DeltaTable) -> dict[str, BoolArray]:
    """Return which rows of a file were not deleted, for the files that have a deletion vector.

    A vector may end before its file does; the rows after it were not deleted.
    """
    paths = data_paths(opened)
    found: dict[str, BoolArray] = {}
    vectors = pa.table(opened.deletion_vectors())
    for uri, kept in zip(vectors["filepath"], vectors["selection_vector"], strict=True):
        path = next(path for path in paths if unquote(str(uri)).endswith(f"/{path}"))
        found[path] = kept.values.to_numpy(zero_copy_only=False)
    return found


def _require(file: pq.ParquetFile, path: str) -> None:
    """Stop if a data file lacks a column.

    Raises:
        ValueError: Naming the columns.
    """
    wanted = {*SEQUENCE_COLUMNS, *COUNT_COLUMNS}
    if missing := sorted(wanted - set(file.schema_arrow.names)):
        raise ValueError(f"data file {path} has no column {', '.join(missing)}")


def _part_rows(file: pq.ParquetFile, part: _Part, columns: tuple[str, ...]) -> pa.Table:
    """Read a part; what is decoded before it is let go batch by batch."""
    size, place, found = part.stop - part.start, 0, []
    batches = file.iter_batches(size, row_groups=[part.row_group], columns=list(columns))
    for batch in batches:
        start, stop = max(part.start - place, 0), min(part.stop - place, len(batch))
        if start < stop:
            found.append(batch.slice(start, stop - start))
        place += len(batch)
        if place >= part.stop:
            break
    return pa.Table.from_batches(found)


def _first_row(parts: list[tuple[_Part, pa.Table]]) -> tuple[int, ...]:
    """Return the user and the chunk of the smallest of a file's rows, all of one split."""
    rows = pa.concat_tables([counts for _, counts in parts])
    smallest = pc.select_k_unstable(  # pyright: ignore[reportAttributeAccessIssue]
        rows, 1, sort_keys=_WITHIN_SPLIT
    )
    row = rows.take(smallest)
    return tuple(row[name][0].as_py() for name, _ in _WITHIN_SPLIT)


def _chunk(gathered: list[tuple[_Part, pa.Table]]) -> _Chunk:
    """Return a chunk of parts, its counts in the order in which its rows will be read.

    Raises:
        ValueError: If a count is null.
    """
    counts = pa.concat_tables([table for _, table in gathered])
    for name in COUNT_COLUMNS:
        if counts[name].null_count:
            raise ValueError(f"column {name!r} has {counts[name].null_count} nulls")
    ordered = counts.sort_by(_WITHIN_SPLIT)
    lengths, targets = (ordered[name].to_numpy().astype(np.int32) for name in COUNT_COLUMNS)
    return _Chunk(parts=tuple(part for part, _ in gathered), lengths=lengths, targets=targets)
