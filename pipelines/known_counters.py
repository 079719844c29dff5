"""Item counters as they were known at the start of each later day: what came late is left out.

An item-day's counts change with each day on which something late about it arrives. Its state of
knowledge is named by `known_on`: what had arrived by the end of that local day. The first state
is that of the item-day itself; `known_until` is the `known_on` of the next state, null for the
last one. Late rows are few, so the states are made by taking what had not arrived yet off the
totals, never by counting anew.
"""

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.item_counters import TRAILING_DAYS, count_items, pack_counts
from pipelines.item_days import sum_columns
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_COUNTERS

_KEY = ("item_id", "event_date")


def known_counters(
    item_days: DataFrame, *, manifest: SourceManifest, start: date, end: date
) -> DataFrame:
    """Count as `item_counters.count_items` does, for each state of knowledge about an item-day.

    Args:
        item_days: Rows of `ITEM_DAYS` up to `end`.
        manifest: The source's description.
        start: First day to return.
        end: Last day to return, inclusive.

    Returns:
        The columns of `ITEM_COUNTERS`, then known_on and known_until. An item-day is there only
        from the state on in which something of that very day had arrived.
    """
    counters = count_items(item_days, manifest=manifest, start=start, end=end)
    missing = _missing_at(item_days, counters, manifest=manifest)
    first = _first_known(item_days, counters)
    states = counters.drop("first_shown_date").join(first, on=list(_KEY), how="inner")
    states = states.join(missing, on=list(_KEY), how="left")
    known_on = F.coalesce("state", F.col("event_date"))
    bits = range(len(manifest.actions))
    taken = {
        f"action_{bit}_{span}": F.get(f"action_counts_{span}", F.lit(bit))
        - _or_zero(f"missing_action_{bit}_{span}")
        for bit in bits
        for span in ("before", "7d")
    }
    counted = states.withColumns(
        {
            **taken,
            "impressions_before": F.col("impressions_before")
            - _or_zero("missing_impressions_before"),
            "impressions_7d": F.col("impressions_7d") - _or_zero("missing_impressions_7d"),
            "first_shown_date": F.least("first_known", "first_arrived"),
            "known_on": known_on,
            "known_until": F.col("next_state"),
        }
    )
    there = F.col("shown_on_day") > _or_zero("missing_on_day")
    return pack_counts(counted.where(there), manifest).select(
        *ITEM_COUNTERS.column_names, "known_on", "known_until"
    )


def _missing_at(
    item_days: DataFrame, counters: DataFrame, *, manifest: SourceManifest
) -> DataFrame:
    """Sum, per item-day and state of knowledge, what had not arrived; none where nothing is late.

    Returns:
        item_id, event_date, state, next_state, the sums, and `first_arrived`, the earliest day
        of the late rows that had arrived.
    """
    late = item_days.where(F.col("arrival_date") > F.col("event_date")).select(
        "item_id",
        F.col("event_date").alias("late_date"),
        F.col("arrival_date").alias("late_arrival"),
        *(value.alias(name) for name, value in sum_columns(manifest).items()),
    )
    days = counters.select(*_KEY)
    is_open = F.col("event_date").between(F.col("late_date"), F.date_sub("late_arrival", 1))
    pending = days.join(late, on="item_id", how="inner").where(is_open)
    arrivals = pending.select(*_KEY, F.col("late_arrival").alias("state"))
    own = pending.select(*_KEY, F.col("event_date").alias("state"))
    in_turn = Window.partitionBy(*_KEY).orderBy("state")
    states = (
        arrivals.unionByName(own).distinct().withColumn("next_state", F.lead("state").over(in_turn))
    )
    joined = states.join(pending, on=list(_KEY), how="inner")
    is_missing = F.col("late_arrival") > F.col("state")
    is_before = F.col("late_date") < F.col("event_date")
    is_trailing = is_before & (F.col("late_date") >= F.date_sub("event_date", TRAILING_DAYS))
    spans = {"before": is_missing & is_before, "7d": is_missing & is_trailing}
    names = tuple(sum_columns(manifest))
    return joined.groupBy(*_KEY, "state", "next_state").agg(
        *(
            F.sum(F.when(span, F.col(name))).alias(f"missing_{name}_{label}")
            for label, span in spans.items()
            for name in names
        ),
        F.sum(F.when(is_missing & ~is_before, F.col("impressions"))).alias("missing_on_day"),
        F.min(F.when(~is_missing, F.col("late_date"))).alias("first_arrived"),
    )


def _first_known(item_days: DataFrame, counters: DataFrame) -> DataFrame:
    """Return, per item-day, its impressions and the first day known by the day's end."""
    arrived = item_days.select(
        "item_id",
        F.col("arrival_date").alias("day"),
        F.col("event_date").alias("first"),
        F.lit(0).cast("long").alias("shown"),
    )
    shown = item_days.select(
        "item_id",
        F.col("event_date").alias("day"),
        F.lit(None).cast("date").alias("first"),
        F.col("impressions").alias("shown"),
    )
    daily = (
        arrived.unionByName(shown)
        .groupBy("item_id", "day")
        .agg(F.min("first").alias("first"), F.sum("shown").alias("shown_on_day"))
    )
    so_far = (
        Window.partitionBy("item_id")
        .orderBy("day")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    known = daily.select(
        "item_id",
        F.col("day").alias("event_date"),
        F.min("first").over(so_far).alias("first_known"),
        "shown_on_day",
    )
    return counters.select(*_KEY).join(known, on=list(_KEY), how="inner")


def _or_zero(name: str) -> Column:
    return F.coalesce(F.col(name), F.lit(0).cast("long"))


def is_known_before(day: Column) -> Column:
    """Return whether a state is the one in force as a local day begins."""
    began = F.col("known_on") < day
    return began & (F.col("known_until").isNull() | (F.col("known_until") >= day))
