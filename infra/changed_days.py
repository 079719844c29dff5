"""Correct the days of a table whose rows have changed, and leave all other days as they are."""

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from infra.contract_guard import row_hash
from infra.lakehouse import Commit, Lakehouse
from pipelines.contract import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """Tell which days were written again.

    Attributes:
        days: The days whose rows differed, ascending.
        commit: The one write that holds all of them, None if there was nothing to correct.
    """

    days: tuple[date, ...] = ()
    commit: Commit | None = None


def correct_days(
    lakehouse: Lakehouse, table: Table, frame: DataFrame, *, start: date, end: date
) -> Correction:
    """Write those of a range of days whose rows differ from the table's, in one commit.

    The span from the first such day to the last is written, so that a crash leaves either the
    old rows or the new ones. Where nothing differs, no version is made.

    Args:
        lakehouse: The lake.
        table: Contract of a partitioned table; where it is not written yet, nothing is done.
        frame: All rows of the range as they should be.
        start: First day of the range; the range may be empty.
        end: Last day, inclusive.
    """
    column = table.partition_by
    if column is None:
        raise ValueError(f"table {table.name} has no partition column: use overwrite")
    if end < start or not lakehouse.exists(table):
        return Correction()
    wanted = frame.where(F.col(column).between(start, end)).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        days = different_days(lakehouse, table, wanted, start=start, end=end)
        if not days:
            return Correction()
        span = wanted.where(F.col(column).between(days[0], days[-1]))
        commit = lakehouse.overwrite_partition(table, span, start=days[0], end=days[-1])
        return Correction(days=days, commit=commit)
    finally:
        wanted.unpersist()


def different_days(
    lakehouse: Lakehouse, table: Table, wanted: DataFrame, *, start: date, end: date
) -> tuple[date, ...]:
    """Return the days whose rows differ from the table's, by their number and sum of hashes.

    Args:
        lakehouse: The lake; holds the table.
        table: Contract of a partitioned table.
        wanted: All rows of the range as they should be.
        start: First day of the range.
        end: Last day, inclusive.
    """
    column = table.partition_by
    if column is None:
        raise ValueError(f"table {table.name} has no partition column: compare it whole")
    there = lakehouse.read(table).where(F.col(column).between(start, end))
    sides = [
        side.groupBy(column).agg(
            F.count(F.lit(1)).alias(f"{name}_rows"), F.sum(row_hash(table)).alias(f"{name}_sum")
        )
        for name, side in (("new", wanted), ("old", there))
    ]
    both = sides[0].join(sides[1], on=column, how="full")
    same = F.col("new_rows").eqNullSafe(F.col("old_rows")) & F.col("new_sum").eqNullSafe(
        F.col("old_sum")
    )
    rows = both.where(~same).select(column).orderBy(column).collect()
    return tuple(row[column] for row in rows)
