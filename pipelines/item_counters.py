"""Count what happened to each item over the days strictly before a day."""

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.item_days import sum_columns
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_COUNTERS

TRAILING_DAYS = 7

_DAY_ZERO = date(1970, 1, 1)


def count_items(
    item_days: DataFrame, *, manifest: SourceManifest, start: date, end: date
) -> DataFrame:
    """Count per item and day on which it was shown, over the days strictly before.

    Args:
        item_days: Rows of `ITEM_DAYS` up to `end`, however late they arrived; whatever is missing
            is not counted.
        manifest: The source's description; its actions order the counts.
        start: First day to return.
        end: Last day to return, inclusive.

    Returns:
        Rows of `ITEM_COUNTERS`.
    """
    sums = sum_columns(manifest)
    daily = item_days.groupBy("item_id", "event_date").agg(
        *(F.sum(value).alias(name) for name, value in sums.items())
    )
    by_day = Window.partitionBy("item_id").orderBy(F.datediff("event_date", F.lit(_DAY_ZERO)))
    before = by_day.rangeBetween(Window.unboundedPreceding, -1)
    trailing = by_day.rangeBetween(-TRAILING_DAYS, -1)
    so_far = by_day.rangeBetween(Window.unboundedPreceding, Window.currentRow)
    counted = daily.select(
        "item_id",
        "event_date",
        *(_or_zero(F.sum(name).over(before)).alias(f"{name}_before") for name in sums),
        *(_or_zero(F.sum(name).over(trailing)).alias(f"{name}_7d") for name in sums),
        F.min("event_date").over(so_far).alias("first_shown_date"),
    )
    return pack_counts(counted.where(F.col("event_date").between(start, end)), manifest).select(
        *ITEM_COUNTERS.column_names
    )


def counters_as_of(
    item_days: DataFrame,
    *,
    manifest: SourceManifest,
    day: date,
    items: DataFrame | None = None,
) -> DataFrame:
    """Count every item over the days strictly before one day, whether shown on it or not.

    Args:
        item_days: Rows of `ITEM_DAYS`.
        manifest: The source's description; its actions order the counts.
        day: The day; nothing on it or after it is counted.
        items: Items to return, at least `item_id`; None for those shown before the day.

    Returns:
        Rows of `ITEM_COUNTERS`, all of `event_date` = `day`, zeros for an item never shown.
    """
    sums = sum_columns(manifest)
    is_trailing = F.col("event_date") >= F.lit(day - timedelta(days=TRAILING_DAYS))
    totals = (
        item_days.where(F.col("event_date") < F.lit(day))
        .groupBy("item_id")
        .agg(
            *(F.sum(value).alias(f"{name}_before") for name, value in sums.items()),
            *(
                F.sum(F.when(is_trailing, value)).alias(f"{name}_7d")
                for name, value in sums.items()
            ),
            F.min("event_date").alias("first_shown_date"),
        )
    )
    wanted = totals if items is None else items.select("item_id").join(totals, "item_id", "left")
    filled = wanted.fillna(0).withColumn("event_date", F.lit(day))
    return pack_counts(filled, manifest).select(*ITEM_COUNTERS.column_names)


def pack_counts(counted: DataFrame, manifest: SourceManifest) -> DataFrame:
    """Add the arrays of `ITEM_COUNTERS` from one column per action, in the manifest's order."""
    bits = range(len(manifest.actions))
    return counted.withColumns(
        {
            "action_counts_before": F.array(*(f"action_{bit}_before" for bit in bits)),
            "action_counts_7d": F.array(*(f"action_{bit}_7d" for bit in bits)),
        }
    )


def _or_zero(total: Column) -> Column:
    return F.coalesce(total, F.lit(0).cast("long"))
