"""Rows are streamed from a Delta table: all of them once, pinned, sorted, deleted ones left out."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from infra.delta_rows import DeltaRows, open_rows
from infra.errors import UserError
from infra.lake_files import data_paths
from ml.batches import BatchConfig, SequenceBatches
from ml.features import SequenceData
from ml.row_chunks import RowsReference, StreamConfig
from ml.streaming import StreamedBatches, joined
from tests.infra.sequence_tables import sequences_table, write_sequences
from tests.ml.sequence_examples import changed, feature_spec, sequences


def _split(split: str, users: range, *, seed: int = 0) -> SequenceData:
    lengths = np.random.default_rng(seed).integers(1, 9, len(users)).tolist()
    rng = np.random.default_rng(seed + 1)
    order = rng.permutation(len(users))
    data = sequences(lengths, split=split, seed=seed)
    target = rng.random(data.num_events) < 0.5
    user = np.array(users, np.int32)[order]
    return changed(data, user=user, is_target=target)


def _table(folder: Path) -> SequenceData:
    """Write two files that mix the splits, in row groups of 10; return all rows as read whole."""
    parts = [
        joined([_split("train", range(100, 133)), _split("test", range(7), seed=2)]),
        joined([_split("validation", range(5), seed=3), _split("train", range(40, 65), seed=4)]),
    ]
    write_sequences(folder, parts, row_group_rows=10)
    return SequenceData.from_arrow(pa.table(DeltaTable(folder).to_pyarrow_table()))


def _read(rows: DeltaRows) -> list[SequenceData]:
    return [rows.read(chunk) for chunk in range(rows.num_chunks)]


def _by_user(data: SequenceData) -> SequenceData:
    return data.take(np.argsort(data.user, kind="stable"))


@pytest.mark.parametrize("chunk_rows", [1, 4, 10, 25, 1000])
def test_every_row_of_the_split_comes_once_and_unchanged(tmp_path: Path, chunk_rows: int) -> None:
    whole = _table(tmp_path).in_split("train")
    rows = DeltaRows(tmp_path, version=1, split="train", chunk_rows=chunk_rows)
    chunks = _read(rows)
    assert max(chunk.num_rows for chunk in chunks) <= chunk_rows
    together = _by_user(joined(chunks))
    for name in whole.__slots__:
        assert np.array_equal(
            getattr(together, name), getattr(whole, name), equal_nan=name not in ("user", "split")
        ), name


def test_counts_are_those_of_the_rows_in_their_order(tmp_path: Path) -> None:
    _table(tmp_path)
    rows = DeltaRows(tmp_path, version=1, split="train", chunk_rows=7)
    for chunk, data in enumerate(_read(rows)):
        assert np.array_equal(rows.lengths(chunk), data.lengths)
        targets = np.bincount(data.event_row[data.is_target], minlength=data.num_rows)
        assert np.array_equal(rows.targets(chunk), targets)
        assert data.user.tolist() == sorted(data.user.tolist())


def test_row_groups_are_cut_evenly_and_small_ones_joined(tmp_path: Path) -> None:
    write_sequences(tmp_path, [_split("train", range(25))], row_group_rows=10)

    def sizes(chunk_rows: int) -> list[int]:
        rows = DeltaRows(tmp_path, version=0, split="train", chunk_rows=chunk_rows)
        return [len(rows.lengths(chunk)) for chunk in range(rows.num_chunks)]

    assert sizes(10) == [10, 10, 5]
    assert sizes(20) == [20, 5]
    assert sizes(6) == [5, 5, 5, 5, 5]
    assert sizes(100) == [25]


def test_tables_that_were_written_alike_give_the_same_chunks_whatever_their_files_names(
    tmp_path: Path,
) -> None:
    parts = [
        joined([_split("train", range(first, first + 9)), _split("test", range(first), seed=first)])
        for first in (60, 20, 40, 80)
    ]
    read, by_name = [], set()
    for number in range(8):
        folder = tmp_path / str(number)
        write_sequences(folder, parts, row_group_rows=4)
        rows = [
            DeltaRows(folder, version=3, split="train", chunk_rows=size) for size in (4, 4, 9, 100)
        ]
        read.append([[chunk.user.tolist() for chunk in _read(one)] for one in rows])
        tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
        by_name.add(tuple(len(table) for table in tables))
    assert len(by_name) > 1
    assert all(users == read[0] for users in read)
    first_users = [min(users) for users in read[0][2]]
    assert first_users == sorted(first_users)


def test_later_writes_are_not_seen(tmp_path: Path) -> None:
    write_sequences(tmp_path, [_split("train", range(5))])
    reference = RowsReference(uri=str(tmp_path), version=0, split="train", chunk_rows=100)
    write_sequences(tmp_path, [_split("train", range(50, 60))])
    write_deltalake(tmp_path, sequences_table(_split("train", range(3))), mode="overwrite")
    assert sorted(open_rows(reference).read(0).user.tolist()) == list(range(5))


def test_a_missing_column_and_a_null_count_are_named(tmp_path: Path) -> None:
    table = sequences_table(_split("train", range(5)))
    write_deltalake(tmp_path / "one", table.drop_columns(["dwell_bucket"]))
    with pytest.raises(ValueError, match="has no column dwell_bucket"):
        DeltaRows(tmp_path / "one", version=0, split="train", chunk_rows=5)
    place = table.column_names.index("num_targets")
    holed = table.set_column(place, "num_targets", pa.array([1, None, 1, 1, 1], pa.int32()))
    write_deltalake(tmp_path / "two", holed)
    with pytest.raises(ValueError, match="'num_targets' has 1 null"):
        DeltaRows(tmp_path / "two", version=0, split="train", chunk_rows=5)


def test_a_split_without_rows_has_no_chunk(tmp_path: Path) -> None:
    write_sequences(tmp_path, [_split("train", range(5))])
    assert DeltaRows(tmp_path, version=0, split="test", chunk_rows=5).num_chunks == 0


def test_streaming_many_chunks_holds_few(tmp_path: Path) -> None:
    def peak(num_files: int) -> tuple[int, int]:
        folder = tmp_path / str(num_files)
        parts = [
            changed(sequences([40] * 50, seed=n), user=np.arange(50, dtype=np.int32) + 50 * n)
            for n in range(num_files)
        ]
        version = write_sequences(folder, parts)
        config = BatchConfig(events=400)
        batches = StreamedBatches(
            DeltaRows(folder, version=version, split="train", chunk_rows=50),
            prepare=lambda data: SequenceBatches(data, spec=feature_spec(), config=config),
            config=config,
            stream=StreamConfig(shuffle_chunks=2, groups_ahead=0),
            epochs=1,
        )
        # Arrow's own memory is counted by Arrow, numpy's by Python.
        arrow, most_arrow = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for _ in batches.epoch(0):
            most_arrow = max(most_arrow, pa.total_allocated_bytes() - arrow)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, most_arrow

    (few, few_arrow), (many, many_arrow) = peak(2), peak(12)
    assert many < 1.2 * few
    assert many_arrow < 1.2 * few_arrow + 100_000


@pytest.fixture(scope="module")
def deleted(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table written by Spark whose users 2, 3 and 17 were deleted by vectors."""
    folder = tmp_path_factory.mktemp("deleted") / "sequences"
    source = folder.with_name("source")
    write_sequences(source, [_split("train", range(20))])
    frame = spark.read.format("delta").load(str(source)).coalesce(1)
    writer = frame.write.format("delta").option("delta.enableDeletionVectors", "true")
    writer.save(str(folder))
    spark.sql(f"DELETE FROM delta.`{folder}` WHERE user_index IN (2, 3, 17)")
    return folder


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_rows_deleted_by_vectors_are_left_out(deleted: Path, chunk_rows: int) -> None:
    files = [data_paths(DeltaTable(deleted, version=version)) for version in (0, 1)]
    assert files[0] == files[1]  # no file was written anew
    for version, gone in ((0, set()), (1, {2, 3, 17})):
        rows = DeltaRows(deleted, version=version, split="train", chunk_rows=chunk_rows)
        users = [user for chunk in _read(rows) for user in chunk.user.tolist()]
        assert sorted(users) == sorted(set(range(20)) - gone)


def test_what_spark_wrote_is_read_like_the_whole_table(deleted: Path) -> None:
    whole = SequenceData.from_arrow(
        pa.table(DeltaTable(deleted.with_name("source")).to_pyarrow_table())
    )
    read = DeltaRows(deleted, version=0, split="train", chunk_rows=100).read(0)
    for name in whole.__slots__:
        assert np.array_equal(
            getattr(read, name), getattr(whole, name), equal_nan=name not in ("user", "split")
        ), name


def test_a_table_with_mapped_columns_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "mapped"
    write_sequences(source, [_split("train", range(3))])
    frame = spark.read.format("delta").load(str(source))
    frame.write.format("delta").option("delta.columnMapping.mode", "name").save(str(folder))
    with pytest.raises(UserError, match="cannot be streamed: it uses columnMapping"):
        DeltaRows(folder, version=0, split="train", chunk_rows=5)


def test_reader_imports_no_spark(checkout: Path) -> None:
    program = (
        "import sys, infra.delta_rows; "
        "sys.exit(any(name in sys.modules for name in ('pyspark', 'dagster', 'mlflow', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=checkout, check=True)
