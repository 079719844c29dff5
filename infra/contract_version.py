"""The properties of every Delta table: contract version, retention of the log, statistics."""

from typing import TYPE_CHECKING

from deltalake import DeltaTable

from infra.errors import UserError
from pipelines.erasure import is_personal

if TYPE_CHECKING:
    from pipelines.contract import Table

PROPERTY = "ranklake.contract_version"
# Without its log entries an old version cannot be read, whatever files a vacuum keeps.
LOG_RETENTION, LOG_RETENTION_VALUE = "delta.logRetentionDuration", "interval 36500 days"
# Statistics of files stay in the log when the files have gone, so those of users hold numbers and
# times only: a text may be a user's id, or be made from one.
STATISTICS, NO_STATISTICS = "delta.dataSkippingStatsColumns", "delta.dataSkippingNumIndexedCols"
_COUNTED_TYPES = ("int", "bigint", "double", "date", "timestamp")
_NUMBERED_USERS = ("user_index",)
_FIRST = "1"  # of tables that were written before contracts had versions


def statistics_properties(table: "Table", *, partition_by: str | None) -> dict[str, str]:
    """Return the property that keeps users out of a table's file statistics; else empty.

    Args:
        table: The contract.
        partition_by: The partition column of the Delta table, which never has statistics.
    """
    if not is_personal(table):
        return {}
    counted = [
        name
        for name, kind in table.columns
        if kind in _COUNTED_TYPES and name not in (*_NUMBERED_USERS, partition_by)
    ]
    return {STATISTICS: ",".join(counted)} if counted else {NO_STATISTICS: "0"}


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
