"""The daily segments of the sequences: each event with what was known of its item that morning.

A day's rows depend on that day's interactions and on the counters and cuts of that day alone, so
that a new day is written without looking at any other. Sequences are these segments joined on
read (sequences.py).
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.event_features import FeatureInputs, add_event_features
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import SEQUENCE_EVENTS


def build_sequence_events(
    interactions: DataFrame, *, inputs: FeatureInputs, manifest: SourceManifest
) -> DataFrame:
    """Build the segments of the days of some interactions.

    Args:
        interactions: Rows of `INTERACTIONS`, any whole days.
        inputs: What was known of the items on these days.
        manifest: The source's manifest.

    Returns:
        Rows of `SEQUENCE_EVENTS`. A day's rows lie together, sorted by user, so that they compress
        well and one user's are found by the statistics of a file's row groups. Sorting by time as
        well costs a twelfth of an increment and saves 0.2 % of the bytes; readers sort anyway.
    """
    described = add_event_features(interactions, inputs=inputs, manifest=manifest)
    known = described.withColumn("dwell_bucket", F.coalesce("dwell_bucket", F.lit(0)))
    rows = known.select(*(F.col(name).cast(kind) for name, kind in SEQUENCE_EVENTS.columns))
    by_day = rows.hint("rebalance", "event_date")
    return by_day.sortWithinPartitions("event_date", "user_id")
