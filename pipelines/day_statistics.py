"""What happened on each day, in numbers: rows, users, ids, outcomes.

Every calendar day of the range has a row, also one on which nothing was logged.
"""

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.attribution import first_reached_day
from pipelines.daypart import local_date
from pipelines.sources.manifest import SourceManifest

_REPEATED = ("exact_duplicate", "key_duplicate")


def raw_day_statistics(raw: DataFrame, *, zone: str, start: date, end: date) -> DataFrame:
    """Count each day's raw rows and users, and find its newest event.

    Args:
        raw: Rows of `RAW_EVENTS`.
        zone: IANA zone of the days.
        start: First day to return.
        end: Last day to return, inclusive.

    Returns:
        event_date, raw_rows, raw_users, nameless_rows and newest_time (of the rows whose time
        lies in the day that they are filed under), one row per day.
    """
    is_timely = local_date(F.col("event_time"), zone=zone) == F.col("event_date")
    ids = [F.col(name) for name in ("event_id", "user_id", "item_id")]
    is_nameless = F.greatest(*(F.coalesce(F.trim(name) == "", F.lit(True)) for name in ids))
    counted = (
        _within(raw, start, end)
        .groupBy("event_date")
        .agg(
            F.count(F.lit(1)).alias("raw_rows"),
            F.count_distinct(F.col("user_id")).alias("raw_users"),
            F.count_if(is_nameless).alias("nameless_rows"),
            F.max(F.when(is_timely, F.col("event_time"))).alias("newest_time"),
        )
    )
    counts = ("raw_rows", "raw_users", "nameless_rows")
    return _every_day(counted, start, end).select(
        "event_date", *(_or_zero(name) for name in counts), "newest_time"
    )


def day_statistics(
    raw: DataFrame,
    *,
    rejected: DataFrame,
    interactions: DataFrame,
    manifest: SourceManifest,
    days: tuple[date, date],
) -> DataFrame:
    """Count what became of each day's raw rows, and what its users did.

    Args:
        raw: Rows of `RAW_EVENTS`.
        rejected: Rows of `REJECTED_EVENTS`.
        interactions: Rows of `INTERACTIONS`; `num_source_rows` says how many each merged, and
            `later_days` which of them were filed under a later day, where they count.
        manifest: Says which actions the source has.
        days: First and last day to return.

    Returns:
        event_date, raw_rows, kept_rows, rejected_rows, repeated_rows, unknown_rows,
        num_interactions, num_users and action_counts (one per action), one row per day.
    """
    came = _within(raw, *days).groupBy("event_date").agg(F.count(F.lit(1)).alias("raw_rows"))
    reason = F.col("reason")
    refused = (
        _within(rejected, *days)
        .groupBy("event_date")
        .agg(
            F.count(F.lit(1)).alias("rejected_rows"),
            F.count_if(reason.isin(*_REPEATED)).alias("repeated_rows"),
            F.count_if(reason == "unknown_item").alias("unknown_rows"),
        )
    )
    bits = F.col("action_bits")
    done = [F.count_if(bits.bitwiseAND(1 << bit) > 0) for bit in range(len(manifest.actions))]
    shown = (
        _within(interactions, *days)
        .groupBy("event_date")
        .agg(
            F.sum("num_source_rows").alias("merged_rows"),
            F.count(F.lit(1)).alias("num_interactions"),
            F.count_distinct(F.col("user_id")).alias("num_users"),
            F.array(*done).alias("action_counts"),
        )
    )
    moved = _moved_rows(interactions, manifest=manifest, days=days)
    joined = _every_day(came, *days)
    for frame in (refused, shown, moved):
        joined = joined.join(frame, on="event_date", how="left")
    nothing = F.array(*(F.lit(0).cast("long") for _ in manifest.actions))
    counts = ("raw_rows", "kept_rows", "rejected_rows", "repeated_rows", "unknown_rows")
    kept = F.coalesce("merged_rows", F.lit(0)) + F.coalesce("moved_rows", F.lit(0))
    return joined.withColumn("kept_rows", kept).select(
        "event_date",
        *(_or_zero(name) for name in (*counts, "num_interactions", "num_users")),
        F.coalesce("action_counts", nothing).alias("action_counts"),
    )


def _moved_rows(
    interactions: DataFrame, *, manifest: SourceManifest, days: tuple[date, date]
) -> DataFrame:
    """Count each day's rows that earlier days' interactions hold, less those of later days in its.

    Returns:
        event_date and moved_rows.
    """
    first = first_reached_day(days[0], manifest=manifest)
    later = _within(interactions, first, days[1]).select(
        "event_date", F.explode("later_days").alias("days")
    )
    filed = F.date_add("event_date", F.col("days"))
    sides = [
        later.select(day.alias("event_date"), F.lit(sign).alias("sign"))
        for day, sign in ((filed, 1), (F.col("event_date"), -1))
    ]
    both = _within(sides[0].unionByName(sides[1]), *days)
    return both.groupBy("event_date").agg(F.sum("sign").alias("moved_rows"))


def _within(frame: DataFrame, start: date, end: date) -> DataFrame:
    return frame.where(F.col("event_date").between(F.lit(start), F.lit(end)))


def _every_day(counted: DataFrame, start: date, end: date) -> DataFrame:
    length = (end - start).days + 1
    days = counted.sparkSession.range(0, length, 1, 1).select(
        F.date_add(F.lit(start), F.col("id").cast("int")).alias("event_date")
    )
    return days.join(counted, on="event_date", how="left")


def _or_zero(name: str) -> Column:
    return F.coalesce(name, F.lit(0)).cast("long").alias(name)
