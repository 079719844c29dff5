"""Tables as they were when a training began: all reads take these versions, and so does its log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from infra.contract_version import refuse_other_version
from infra.delta_arrow import Filters, arrow, open_table, table_path
from infra.lake_location import Folder

if TYPE_CHECKING:
    from ml.row_chunks import RowsReference
    from pipelines.contract import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedTables:
    """Read tables at the versions that they had when they were pinned, whoever writes meanwhile.

    Attributes:
        root: Root of the lake.
        versions: Table name to Delta version.
    """

    root: Folder
    versions: Mapping[str, int]

    def arrow(
        self,
        table: "Table",
        *,
        columns: tuple[str, ...] | None = None,
        filters: Filters | None = None,
    ) -> pa.Table:
        """Return a pinned table in Arrow, columns in contract order.

        Args:
            table: Contract of a table that was pinned.
            columns: Columns to read, all of the contract by default.
            filters: (column, operator, value) triples that all must hold.

        Raises:
            ValueError: If the table was not pinned, or a column is not in the contract.
        """
        version = self._version(table)
        return arrow(self.root, table, version=version, columns=columns, filters=filters)

    def rows(self, table: "Table", *, split: str, chunk_rows: int) -> "RowsReference":
        """Return where a pinned table's rows of a split are, for who streams them.

        Args:
            table: Contract of a table that was pinned.
            split: The split.
            chunk_rows: Rows that are read together at most.

        Raises:
            ValueError: If the table was not pinned.
        """
        from ml.row_chunks import RowsReference

        return RowsReference(
            uri=str(table_path(self.root, table)),
            version=self._version(table),
            split=split,
            chunk_rows=chunk_rows,
        )

    def _version(self, table: "Table") -> int:
        if table.name not in self.versions:
            raise ValueError(f"table {table.name} is not pinned, {', '.join(self.versions)} are")
        return self.versions[table.name]


def pin(root: Folder, tables: "tuple[Table, ...]") -> PinnedTables:
    """Pin tables at their newest versions.

    Raises:
        UserError: If a table has not been written, or was for another version of its contract.
    """
    versions = {}
    for table in tables:
        opened = open_table(root, table)
        refuse_other_version(opened, table)
        versions[table.name] = opened.version()
    return PinnedTables(root=root, versions=versions)
