"""The properties of every Delta table: its contract's version, and how long its log is kept."""

from typing import TYPE_CHECKING

from deltalake import DeltaTable

from infra.errors import UserError

if TYPE_CHECKING:
    from pipelines.contract import Table

PROPERTY = "ranklake.contract_version"
# Without its log entries an old version cannot be read, whatever files a vacuum keeps.
LOG_RETENTION, LOG_RETENTION_VALUE = "delta.logRetentionDuration", "interval 36500 days"
_FIRST = "1"  # of tables that were written before contracts had versions


def contract_version(opened: DeltaTable) -> int:
    """Return the version of the contract that an opened table was written for."""
    return int(opened.metadata().configuration.get(PROPERTY) or _FIRST)


def refuse_other_version(opened: DeltaTable, table: "Table", *, is_pinned: bool = False) -> None:
    """Stop unless an opened table was written for the contract of today.

    Args:
        opened: The table at the version that is to be used.
        table: Its contract.
        is_pinned: That version was asked for by number, so that migrating does not help.

    Raises:
        UserError: Naming both versions and the remedy.
    """
    found = contract_version(opened)
    if found == table.version:
        return
    if found > table.version:
        remedy = "update ranklake"
    elif is_pinned:
        remedy = "read it with the release that wrote it, or take a newer version of the table"
    else:
        remedy = "run make migrate"
    raise UserError(
        f"table {table.name} at {opened.table_uri.removeprefix('file://')} (Delta version "
        f"{opened.version()}) was written for version {found} of its contract, and this is "
        f"version {table.version}",
        remedy=remedy,
    )
