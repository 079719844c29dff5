"""Which data files of a table hold rows of a user, of every version that is on the disk.

Reads Parquet without a JVM, and only the columns that can hold an id, by the same rule as the rows
are deleted by (pipelines/erasure.py).
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from infra.lake_files import LOG, data_paths, files_under, open_delta, opened_file
from infra.lake_location import Folder
from pipelines.contract import Table
from pipelines.erasure import has_free_text, named_texts

_compute: Any = pc  # its functions are made at import, which type checkers cannot see
_IDS = ("event_id", "impression_id", "request_id")
_COLUMNS = ("user_id", "raw_text", "payload", *_IDS)


def holding_files(folder: Folder, table: Table, user_ids: Collection[str]) -> dict[str, set[str]]:
    """Return the data files that hold users, by their paths in the table's folder.

    A file that cannot be read, as a killed driver leaves one, may hold all of them.

    Args:
        folder: Folder of the table.
        table: The contract of a personal table.
        user_ids: The users to look for.
    """
    patterns = {user_id: _pattern(user_id) for user_id in user_ids}
    found = {}
    for path in _parquet_files(folder):
        try:
            held = _held(folder, path, table, patterns)
        except (pa.ArrowException, OSError):
            held = set(user_ids)
        if held:
            found[path] = held
    return found


def holds_user(folder: Folder, version: int, *, holding: Collection[str]) -> bool:
    """Return whether a version of a table holds a user; true where its files are gone.

    Args:
        folder: Folder of the table.
        version: Delta version.
        holding: Paths of the data files that hold the user.
    """
    try:
        paths = data_paths(open_delta(folder, version=version))
    except (DeltaError, OSError):
        return True
    there = set(_parquet_files(folder))
    return any(path in holding or path not in there for path in paths)


def _parquet_files(folder: Folder) -> list[str]:
    paths = [file.path for file in files_under(folder)]
    return [path for path in paths if path.endswith(".parquet") and LOG not in path.split("/")]


def _pattern(user_id: str) -> re.Pattern[str] | None:
    texts = [re.escape(found.text) for found in named_texts(user_id)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(texts)})(?!\w)") if texts else None


def _held(
    folder: Folder, path: str, table: Table, patterns: dict[str, re.Pattern[str] | None]
) -> set[str]:
    found: set[str] = set()
    with opened_file(folder, path) as source, pq.ParquetFile(source) as file:
        there = set(file.schema_arrow.names)
        columns = [name for name in _COLUMNS if name in there]
        if not has_free_text(table):
            columns = ["user_id"] if "user_id" in there else []
        for batch in file.iter_batches(columns=columns):
            found |= _owners(batch, patterns)
            if has_free_text(table):
                found |= _named(batch, patterns)
    return found


def _owners(batch: pa.RecordBatch, user_ids: Collection[str]) -> set[str]:
    if "user_id" not in batch.schema.names:
        return set()
    owners = batch.column("user_id").cast(pa.string())
    is_asked = _compute.is_in(owners, value_set=pa.array(list(user_ids), pa.string()))
    return set(owners.filter(is_asked).unique().to_pylist())


def _named(batch: pa.RecordBatch, patterns: dict[str, re.Pattern[str] | None]) -> set[str]:
    """Return the users whom a row's payload belongs to, or whom its free text names."""
    found = set()
    for row in _rows_with_text(batch):
        free = row.get("raw_text") or ""
        if not (row.get("user_id") or "").strip():
            free = "\n".join([free, *(row.get(name) or "" for name in _IDS)])
        for user_id, pattern in patterns.items():
            if row.get("user_id") == user_id or (pattern and pattern.search(free)):
                found.add(user_id)
    return found


def _rows_with_text(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    if "payload" in batch.schema.names:
        yield from map(json.loads, batch.column("payload").to_pylist())
        return
    owners = _compute.fill_null(_compute.utf8_trim_whitespace(batch.column("user_id")), "")
    is_wanted = _compute.or_(
        _compute.is_valid(batch.column("raw_text")), _compute.equal(owners, "")
    )
    yield from batch.filter(is_wanted).to_pylist()
