"""The numbers of an item on one day that percentiles are made of, all known before that day.

Source: spec llm-dual-encoder-retrieval, section 5.3 (percentiles per content-age bucket).
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.daypart import local_date, start_of_day
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_COUNTERS
from pipelines.versions import VALID, as_of

FEATURES = ("popularity", "rate", "duration")
AGE_EDGES_DAYS = (1, 3, 7, 30)
PRIOR_DAYS = 28
PRIOR_IMPRESSIONS = 20


def age_bucket(day: Column, *, created_time: Column, first_shown_date: Column, zone: str) -> Column:
    """Return the content age on a day: 1 (created that day) to 5 (30 days or more), 0 unknown.

    The age is in whole local days; a bucket begins at its edge of `AGE_EDGES_DAYS`. An item with
    no creation time is as old as its first interaction, and new until that day has come, so that
    the bucket never tells whether an item will be shown. An item created after the day is 0.
    """
    created_days = F.datediff(day, local_date(created_time, zone=zone))
    seen_days = F.datediff(day, first_shown_date)
    days = F.coalesce(created_days, F.greatest(seen_days, F.lit(0)), F.lit(0))
    bucket = F.lit(1)
    for edge in AGE_EDGES_DAYS:
        bucket += (days >= edge).cast("int")
    return F.when(days < 0, F.lit(0)).otherwise(bucket)


def item_numbers(
    rows: DataFrame, *, rates: DataFrame, versions: DataFrame, manifest: SourceManifest
) -> DataFrame:
    """Describe items on days by integers, all of them known when the day began.

    popularity is the impressions of the seven days before, so that it keeps its scale as a log
    grows older; duration is in milliseconds; rate is the share
    of impressions with the primary action, per mille, drawn towards the mean rate as if by
    `PRIOR_IMPRESSIONS` further impressions, and null for an item never shown before. Without a
    mean rate the rate stays as counted.

    Args:
        rows: The item-days to describe, in the columns of `ITEM_COUNTERS`: the table itself,
            `item_counters.counters_as_of` or `known_counters.known_counters`.
        rates: Rows of `mean_rates`.
        versions: Rows of `ITEM_VERSIONS`; creation and duration are as of the day's beginning.
        manifest: The source's description.

    Returns:
        item_id, event_date, age_bucket, then one long column per name of `FEATURES`,
        item_impressions_7d and item_positives_7d, and whatever columns `rows` has beyond those
        of `ITEM_COUNTERS`. Without dates (`manifest.has_dates` is false) ages
        and counts are 0 and popularity and rate are null: unknown.
    """
    primary = manifest.actions.index(manifest.primary_action)
    facts = versions.select("item_id", *VALID, "created_time", "duration_ms")
    began = F.unix_micros(start_of_day(F.col("event_date"), zone=manifest.timezone))
    described = as_of(rows.withColumn("moment", began), facts, key="item_id")
    joined = described.join(F.broadcast(rates), on="event_date", how="left")
    bucket = age_bucket(
        F.col("event_date"),
        created_time=F.col("created_time"),
        first_shown_date=F.col("first_shown_date"),
        zone=manifest.timezone,
    )
    numbers = joined.select(
        "item_id",
        "event_date",
        bucket.alias("age_bucket"),
        F.col("impressions_7d").alias("popularity"),
        _rate_per_mille(primary=primary).alias("rate"),
        F.col("duration_ms").alias("duration"),
        F.col("impressions_7d").alias("item_impressions_7d"),
        F.get("action_counts_7d", F.lit(primary)).alias("item_positives_7d"),
        *(name for name in rows.columns if name not in ITEM_COUNTERS.column_names),
    )
    return numbers if manifest.has_dates else numbers.withColumns(_unknown_numbers())


def _unknown_numbers() -> dict[str, Column]:
    """Return what takes the place of all that needs dates: no age, no number, no counts."""
    nothing, none_counted = F.lit(None).cast("long"), F.lit(0).cast("long")
    return {
        "age_bucket": F.lit(0),
        "popularity": nothing,
        "rate": nothing,
        "item_impressions_7d": none_counted,
        "item_positives_7d": none_counted,
    }


def mean_rates(item_days: DataFrame, *, manifest: SourceManifest) -> DataFrame:
    """Return each day's mean rate of the primary action: what rates of rare items are drawn to.

    The mean is over the impressions of the `PRIOR_DAYS` days strictly before, of those that had
    arrived when the day began, so that it never changes once the day has begun.

    Args:
        item_days: Rows of `ITEM_DAYS`.
        manifest: The source's description.

    Returns:
        event_date and mean_rate, a row per day with impressions in its window; days after the
        log's end included.
    """
    positive = F.get("action_counts", F.lit(manifest.actions.index(manifest.primary_action)))
    daily = item_days.groupBy("event_date", "arrival_date").agg(
        F.sum("impressions").alias("shown"), F.sum(positive).alias("positive")
    )
    first, last = F.date_add("arrival_date", 1), F.date_add("event_date", PRIOR_DAYS)
    later = daily.where(first <= last).withColumn("event_date", F.explode(F.sequence(first, last)))
    sums = later.groupBy("event_date").agg(
        F.sum("shown").alias("shown"), F.sum("positive").alias("positive")
    )
    return sums.select("event_date", (F.col("positive") / F.col("shown")).alias("mean_rate"))


def _rate_per_mille(*, primary: int) -> Column:
    shown = F.col("impressions_before")
    positive = F.get("action_counts_before", F.lit(primary))
    prior = F.when(F.col("mean_rate").isNull(), F.lit(0)).otherwise(F.lit(PRIOR_IMPRESSIONS))
    drawn = positive + prior * F.coalesce("mean_rate", F.lit(0.0))
    rate = 1000 * drawn / F.nullif(shown + prior, F.lit(0))
    return F.when(shown > 0, F.round(rate).cast("long"))
