"""Read the lake into Arrow, and its log, without a JVM."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable

from infra.contract_version import refuse_other_version
from infra.errors import UserError
from infra.lake_files import data_paths, is_table, open_delta
from infra.lake_location import Folder
from infra.table_history import last_write, written_bytes, written_rows

if TYPE_CHECKING:
    from pipelines.contract import Table

Filters = list[tuple[str, str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEntry:
    """Hold what the newest commit that wrote rows says about itself.

    Attributes:
        version: The table's newest version.
        num_rows: Rows that it wrote.
        num_bytes: Bytes of data files that it wrote.
        mark: What its writer noted in the log, or None.
    """

    version: int
    num_rows: int
    num_bytes: int
    mark: str | None


def table_path(root: Folder, table: "Table") -> Folder:
    """Return the folder of a table in the lake."""
    return root / table.group / table.name


def exists(root: Folder, table: "Table") -> bool:
    """Return whether the table has been written."""
    return is_table(table_path(root, table))


def require(root: Folder, table: "Table") -> Folder:
    """Return the folder of a table that has been written.

    Raises:
        UserError: If it has not.
    """
    path = table_path(root, table)
    if not exists(root, table):
        raise UserError(
            f"table {table.name} does not exist at {path}", remedy="materialise it first"
        )
    return path


def open_table(root: Folder, table: "Table", *, version: int | None = None) -> DeltaTable:
    """Open a table, the newest version by default.

    Raises:
        UserError: If the table has not been written.
    """
    return open_delta(require(root, table), version=version)


def arrow(
    root: Folder,
    table: "Table",
    *,
    version: int | None = None,
    columns: tuple[str, ...] | None = None,
    filters: Filters | None = None,
) -> pa.Table:
    """Return a table in Arrow, columns in contract order.

    Args:
        root: Root of the lake.
        table: Contract of the table.
        version: Delta version, the newest by default.
        columns: Columns to read, all of the contract by default.
        filters: (column, operator, value) triples that all must hold.

    Raises:
        UserError: If the table has not been written, or was for another version of its contract.
        ValueError: If a column is not in the contract.
    """
    wanted = columns or table.column_names
    if unknown := sorted(set(wanted) - set(table.column_names)):
        raise ValueError(f"table {table.name} has no column {', '.join(unknown)}")
    source = open_table(root, table, version=version)
    refuse_other_version(source, table, is_pinned=version is not None)
    return source.to_pyarrow_table(columns=list(wanted), filters=filters)


def last_commit(root: Folder, table: "Table") -> LogEntry:
    """Return a table's newest commit that wrote rows, from its log alone.

    Raises:
        UserError: If the table has not been written.
    """
    opened = open_table(root, table)
    entry = last_write(opened)
    metrics = entry.get("operationMetrics", {})
    return LogEntry(
        version=opened.version(),
        num_rows=written_rows(metrics),
        num_bytes=written_bytes(metrics),
        mark=entry.get("userMetadata"),
    )


def data_files(folder: Folder) -> frozenset[str]:
    """Return the paths, relative to its folder, of the data files of a table's newest version."""
    return frozenset(data_paths(open_delta(folder))) if is_table(folder) else frozenset()
