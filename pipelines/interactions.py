"""Join the kept rows of one impression into one labelled interaction.

An outcome is filed at its impression's time: this table does not know when an action happened.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.daypart import local_date, local_hour, local_weekday
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import INTERACTIONS

DWELL_EDGES_MS = (1_000, 3_000, 7_000, 15_000, 30_000, 60_000, 120_000)

_FROM_IMPRESSION = (
    "request_id",
    "event_time",
    "duration_ms",
    "position",
    "surface",
    "propensity",
    "is_shuffled",
    "true_probability",
    "reachable_probability",
)
_GROUP = ("interaction_date", "user_id", "item_id", "interaction_id")


def action_mask(names: Column, *, actions: tuple[str, ...]) -> Column:
    """Pack an array of action names into the bits of `action_bits`, null counting as none."""
    bits = [
        F.when(F.array_contains(names, name), F.lit(1 << bit)).otherwise(F.lit(0))
        for bit, name in enumerate(actions)
    ]
    return reduce(Column.bitwiseOR, bits).cast("int")


def dwell_bucket(dwell_ms: Column) -> Column:
    """Return 0 for an unknown dwell, else 1 (below one second) to 8 (two minutes or more).

    A bucket begins at its edge of `DWELL_EDGES_MS`.
    """
    passed = [(dwell_ms >= edge).cast("int") for edge in DWELL_EDGES_MS]
    return F.coalesce(F.lit(1) + reduce(Column.__add__, passed), F.lit(0))


def label_impressions(kept: DataFrame, *, manifest: SourceManifest) -> DataFrame:
    """Merge each impression with its actions; `num_source_rows` sums to the rows of `kept`.

    In a log of positives only (`has_impressions` is false) every row is an interaction of its
    own. The dwell is the longest that any of the rows reports. An interaction has arrived when the
    last of its rows has; a row that does not say when has on its own day.

    Args:
        kept: The first frame of `cleaning.split_raw`.
        manifest: The source's description.

    Returns:
        Rows of `INTERACTIONS`.
    """
    own_day = F.col("event_date") == F.col("interaction_date")
    is_root = own_day & (F.col("event_id") == F.col("interaction_id"))
    root = F.max(F.when(is_root, F.struct(*_FROM_IMPRESSION)))
    merged = kept.groupBy(*_GROUP).agg(
        root.alias("root"),
        F.bit_or(action_mask(F.col("actions"), actions=manifest.actions)).alias("action_bits"),
        F.max("dwell_ms").alias("dwell_ms"),
        F.max("duration_ms").alias("longest_ms"),
        F.count(F.lit(1)).cast("int").alias("num_source_rows"),
        F.max("arrival_time").alias("arrival_time"),
        *(_later_days() if manifest.actions_filed_apart else ()),
    )
    if not manifest.actions_filed_apart:
        merged = merged.withColumns(
            {"last_date": F.col("interaction_date"), "later_days": F.lit(None).cast("array<int>")}
        )
    time, zone = F.col("event_time"), manifest.timezone
    flat = merged.select(
        *_GROUP,
        "action_bits",
        "dwell_ms",
        "longest_ms",
        "num_source_rows",
        "arrival_time",
        "last_date",
        "later_days",
        "root.*",
    )
    return flat.withColumns(
        {
            "event_id": F.col("interaction_id"),
            "request_id": F.coalesce("request_id", "interaction_id"),
            "event_date": F.col("interaction_date"),
            "arrival_date": F.greatest("last_date", local_date(F.col("arrival_time"), zone=zone)),
            "local_hour": local_hour(time, zone=zone),
            "local_weekday": local_weekday(time, zone=zone),
            "dwell_bucket": dwell_bucket(F.col("dwell_ms")),
            "duration_ms": F.coalesce("duration_ms", "longest_ms"),
        }
    ).select(*INTERACTIONS.column_names)


def _later_days() -> list[Column]:
    """Return the day of an interaction's last row, and how many days later its later rows are."""
    days = F.date_diff("event_date", "interaction_date")
    later = F.array_sort(F.collect_list(F.when(days > 0, days)))
    return [
        F.max("event_date").alias("last_date"),
        F.when(F.size(later) > 0, later).alias("later_days"),
    ]
