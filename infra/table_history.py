"""What a table is made of and what was done to it last, from its Delta log alone."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

# Commits that rearrange or remove files and change no row.
CARE = ("OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES")
_BYTES = ("numOutputBytes", "numTargetBytesAdded")
_ROWS = ("numOutputRows", "num_added_rows")
_MERGED = ("numTargetRowsInserted", "numTargetRowsUpdated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Describe one commit.

    Attributes:
        version: Delta version that it made.
        when: Time of the commit, UTC.
        name: Delta's name of the operation.
        rows: Rows that it wrote.
        bytes: Bytes of data files that it wrote.
    """

    version: int
    when: datetime
    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TableState:
    """Hold the size of a table's newest version and its last operations, newest first.

    Attributes:
        version: Delta version.
        rows: Number of rows.
        files: Number of data files.
        bytes: Bytes of the data files.
        without_statistics: Data files whose number of rows the log does not tell.
        operations: The last commits.
    """

    version: int
    rows: int
    files: int
    bytes: int
    without_statistics: int
    operations: tuple[Operation, ...]


def table_state(opened: DeltaTable, *, num_operations: int = 5) -> TableState:
    """Return the size and the last operations of an opened table."""
    files = pa.table(opened.get_add_actions(flatten=True))
    return TableState(
        version=opened.version(),
        rows=_total(files, "num_records"),
        files=len(files),
        bytes=_total(files, "size_bytes"),
        without_statistics=files["num_records"].null_count if len(files) else 0,
        operations=tuple(_operation(entry) for entry in opened.history(num_operations)),
    )


def last_write(opened: DeltaTable) -> dict[str, Any]:
    """Return the newest commit that is not care of the files."""
    for limit in (1, 20, None):
        for entry in opened.history(limit):
            if entry["operation"] not in CARE:
                return entry
    return opened.history(1)[0]


def written_rows(metrics: dict[str, Any]) -> int:
    """Return how many rows a commit wrote, by its metrics; of a merge, inserted and updated."""
    if "numTargetRowsInserted" in metrics:
        return sum(int(metrics.get(name, 0)) for name in _MERGED)
    total = sum(int(metrics.get(name, 0)) for name in _ROWS)
    return total - int(metrics.get("numCopiedRows", 0))


def written_bytes(metrics: dict[str, Any]) -> int:
    """Return how many bytes of data files a commit wrote, by its metrics."""
    return next((int(metrics[name]) for name in reversed(_BYTES) if name in metrics), 0)


def _operation(entry: dict[str, Any]) -> Operation:
    metrics = entry.get("operationMetrics") or {}
    return Operation(
        version=int(entry["version"]),
        when=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
        name=str(entry["operation"]),
        rows=written_rows(metrics),
        bytes=written_bytes(metrics),
    )


def _total(files: pa.Table, column: str) -> int:
    if not len(files):
        return 0
    return int(pc.sum(files[column]).as_py() or 0)  # pyright: ignore[reportAttributeAccessIssue]
