"""Count what happened to each item over the days strictly before a day.

An outcome counts on the day of its impression, so one that comes after midnight is in the next
day's totals from its first minute: this table does not know when an action happened.
"""

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_COUNTERS

TRAILING_DAYS = 7

_DAY_ZERO = date(1970, 1, 1)


def count_items(
    interactions: DataFrame, *, manifest: SourceManifest, start: date, end: date
) -> DataFrame:
    """Count per item and day on which it was shown, over the days strictly before.

    Events are summed per item and day first; the windows run over those sums.

    Args:
        interactions: Rows of `INTERACTIONS` up to `end`; whatever is missing is not counted.
        manifest: The source's description; its actions order the counts.
        start: First day to return.
        end: Last day to return, inclusive.

    Returns:
        Rows of `ITEM_COUNTERS`.
    """
    sums = _sum_columns(manifest)
    daily = interactions.groupBy("item_id", "event_date").agg(
        *(F.sum(value).alias(name) for name, value in sums.items())
    )
    by_day = Window.partitionBy("item_id").orderBy(F.datediff("event_date", F.lit(_DAY_ZERO)))
    before = by_day.rangeBetween(Window.unboundedPreceding, -1)
    trailing = by_day.rangeBetween(-TRAILING_DAYS, -1)
    counted = daily.select(
        "item_id",
        "event_date",
        *(_or_zero(F.sum(name).over(before)).alias(f"{name}_before") for name in sums),
        *(_or_zero(F.sum(name).over(trailing)).alias(f"{name}_7d") for name in sums),
    )
    return _pack(counted.where(F.col("event_date").between(start, end)), manifest)


def counters_as_of(
    interactions: DataFrame,
    *,
    manifest: SourceManifest,
    day: date,
    items: DataFrame | None = None,
) -> DataFrame:
    """Count every item over the days strictly before one day, whether shown on it or not.

    Args:
        interactions: Rows of `INTERACTIONS`.
        manifest: The source's description; its actions order the counts.
        day: The day; nothing on it or after it is counted.
        items: Items to return, at least `item_id`; None for those shown before the day.

    Returns:
        Rows of `ITEM_COUNTERS`, all of `event_date` = `day`, zeros for an item never shown.
    """
    sums = _sum_columns(manifest)
    is_trailing = F.col("event_date") >= F.lit(day - timedelta(days=TRAILING_DAYS))
    totals = (
        interactions.where(F.col("event_date") < F.lit(day))
        .groupBy("item_id")
        .agg(
            *(F.sum(value).alias(f"{name}_before") for name, value in sums.items()),
            *(
                F.sum(F.when(is_trailing, value)).alias(f"{name}_7d")
                for name, value in sums.items()
            ),
        )
    )
    wanted = totals if items is None else items.select("item_id").join(totals, "item_id", "left")
    filled = wanted.fillna(0).withColumn("event_date", F.lit(day))
    return _pack(filled, manifest)


def _sum_columns(manifest: SourceManifest) -> dict[str, Column]:
    actions = {
        f"action_{bit}": F.getbit("action_bits", F.lit(bit)).cast("long")
        for bit in range(len(manifest.actions))
    }
    return {"impressions": F.lit(1).cast("long"), **actions}


def _or_zero(total: Column) -> Column:
    return F.coalesce(total, F.lit(0).cast("long"))


def _pack(counted: DataFrame, manifest: SourceManifest) -> DataFrame:
    bits = range(len(manifest.actions))
    return counted.withColumns(
        {
            "action_counts_before": F.array(*(f"action_{bit}_before" for bit in bits)),
            "action_counts_7d": F.array(*(f"action_{bit}_7d" for bit in bits)),
        }
    ).select(*ITEM_COUNTERS.column_names)
