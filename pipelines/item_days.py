"""Sum up what happened to each item on each day, apart by the day on which it arrived.

Counters, percentile cuts and the catalogue's first appearances are made from these sums, so that
they read a row per item and day and never the history of events. Sums are whole numbers: they do
not depend on the order in which rows came, or in how many runs.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_DAYS


def sum_item_days(interactions: DataFrame, *, manifest: SourceManifest) -> DataFrame:
    """Sum impressions and actions per item, day and day of arrival.

    An outcome counts on the day of its impression, so one that comes after midnight is in the
    next day's totals from its first minute: interactions do not say when an action happened.

    Args:
        interactions: Rows of `INTERACTIONS`, any whole days.
        manifest: The source's description; its actions order the counts.

    Returns:
        Rows of `ITEM_DAYS`.
    """
    bits = range(len(manifest.actions))
    happened = [F.getbit("action_bits", F.lit(bit)).cast("long") for bit in bits]
    sums = interactions.groupBy("item_id", "event_date", "arrival_date").agg(
        F.count(F.lit(1)).alias("impressions"),
        *(F.sum(value).alias(f"action_{bit}") for bit, value in enumerate(happened)),
        F.min("event_time").alias("first_event_time"),
    )
    counts = F.array(*(f"action_{bit}" for bit in bits))
    return sums.withColumn("action_counts", counts).select(*ITEM_DAYS.column_names)


def sum_columns(manifest: SourceManifest) -> dict[str, Column]:
    """Return impressions and one column per action of `ITEM_DAYS`, by the names of their sums."""
    actions = {
        f"action_{bit}": F.get("action_counts", F.lit(bit)) for bit in range(len(manifest.actions))
    }
    return {"impressions": F.col("impressions"), **actions}
