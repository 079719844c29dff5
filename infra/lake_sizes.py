"""How large each table of the lake is, read from its Delta log alone."""

from dataclasses import dataclass

from infra.delta_arrow import exists, open_table
from infra.lake_location import Folder
from infra.table_history import table_state
from pipelines.contract import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSize:
    """Hold the size of one table's newest version.

    Attributes:
        name: Name of the table.
        row: What one row is.
        rows: Number of rows.
        bytes: Bytes of its data files.
        files: Number of data files.
        version: Delta version.
    """

    name: str
    row: str
    rows: int
    bytes: int
    files: int
    version: int


def table_sizes(root: Folder, tables: tuple[Table, ...]) -> list[TableSize]:
    """Return the sizes of the tables that exist, in the given order."""
    return [_size(root, table) for table in tables if exists(root, table)]


def _size(root: Folder, table: Table) -> TableSize:
    state = table_state(open_table(root, table), num_operations=1)
    return TableSize(
        name=table.name,
        row=table.row,
        rows=state.rows,
        bytes=state.bytes,
        files=state.files,
        version=state.version,
    )
