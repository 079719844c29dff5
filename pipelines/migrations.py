"""Carry the rows of a table from one version of its contract to the next.

A step is a pure function of the whole table, found by the table's name and the version that it
starts from; it returns the columns of the next version. A contract whose `version` is raised
needs its step here, and a test of it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipelines.contract import Table
from pipelines.table_steps import (
    add_later_days,
    add_logging_policy,
    add_logging_policy_lists,
    add_session_index,
    drop_is_mature,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Migration = Callable[["DataFrame"], "DataFrame"]
Migrations = Mapping[tuple[str, int], Migration]

MIGRATIONS: Migrations = {
    ("interactions", 1): drop_is_mature,
    ("interactions", 2): add_later_days,
    ("sequence_events", 1): add_logging_policy,
    ("sequences", 1): add_session_index,
    ("sequences", 2): add_logging_policy_lists,
}


def migrate_rows(
    frame: "DataFrame", table: Table, *, from_version: int, migrations: Migrations = MIGRATIONS
) -> "DataFrame":
    """Return the rows of an older version of a table as its contract wants them now.

    Args:
        frame: All rows of the table, in the columns of the older version.
        table: The contract of today.
        from_version: Version of the contract that the rows were written for.
        migrations: Steps by table name and the version that each starts from.

    Raises:
        ValueError: If a step is missing.
    """
    steps = range(from_version, table.version)
    if missing := [str(step) for step in steps if (table.name, step) not in migrations]:
        raise ValueError(
            f"table {table.name} has no migration from version {', '.join(missing)}; "
            "add it to pipelines/migrations.py"
        )
    for step in steps:
        frame = migrations[table.name, step](frame)
    return frame
