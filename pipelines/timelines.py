"""Timelines: each user's events in one ordered array, with the request that each belongs to.

A moment is a long: microseconds since the epoch, or a place before all of them for undated
history. A request's moment is that of its first event. The order is by the event's moment and,
between equal moments, the later request first. So if event m stands before event n and m's
request moment is below n's, then m happened strictly before n: "an earlier place in an earlier
request" never looks at the same instant, also where requests overlap or share their times.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.maturity import mature_until
from pipelines.sources.manifest import SourceManifest
from pipelines.splits import split_of

_BEFORE_ALL_TIMES = -(2**62)
FIRST_DATED_MOMENT = -(2**61)  # moments below it are places in undated history


def with_history(interactions: DataFrame, history: DataFrame | None) -> DataFrame:
    """Append undated history to the interactions, as rows without a time.

    Args:
        interactions: The interactions table.
        history: user_id, item_ids, action_bits and dwell_bucket (arrays, oldest first), or None.

    Returns:
        The interactions' columns and `history_place`, the place within the history, else null.
        Each event of the history is a request of its own.
    """
    dated = interactions.withColumn("history_place", F.lit(None).cast("int"))
    if history is None:
        return dated
    zipped = F.arrays_zip("item_ids", "action_bits", "dwell_bucket")
    events = history.select("user_id", F.posexplode(zipped).alias("place", "event"))
    undated = events.select(
        "user_id",
        F.concat(F.lit("history-"), F.col("place").cast("string")).alias("request_id"),
        F.col("event.item_ids").alias("item_id"),
        F.coalesce("event.action_bits", F.lit(0)).cast("int").alias("action_bits"),
        F.coalesce("event.dwell_bucket", F.lit(0)).cast("int").alias("dwell_bucket"),
        F.col("place").alias("history_place"),
    )
    return dated.unionByName(undated, allowMissingColumns=True)


def moment_of() -> Column:
    """Return the moment of a row of `with_history`: what orders a user's events."""
    dated = F.unix_micros("event_time")
    return F.coalesce(dated, F.lit(_BEFORE_ALL_TIMES) + F.col("history_place"))


def collect_timelines(
    events: DataFrame, *, fields: tuple[str, ...], manifest: SourceManifest
) -> DataFrame:
    """Collect each user's events into one array, oldest first, with one shuffle by user.

    Args:
        events: Rows of `with_history`, with any further columns.
        fields: Columns to carry along in each element.
        manifest: The source's manifest.

    Returns:
        user_id and `events`, an array of structs: moment, request_moment, split (of the event's
        own time; null for history), is_target (dated, its labels are final, and its request began
        in the same split), then the fields.
    """
    placed = events.repartition("user_id").withColumns(
        {
            "moment": moment_of(),
            "position": F.coalesce("position", F.lit(-1)),
        }
    )
    needed = ("event_time", "moment", "position", "event_id")
    carried = tuple(dict.fromkeys((*needed, *fields)))
    requests = placed.groupBy("user_id", "request_id").agg(
        F.collect_list(F.struct(*carried)).alias("shown"),
        F.min("moment").alias("request_moment"),
        F.min("event_time").alias("request_time"),
    )
    elements = F.transform("shown", lambda event: _element(event, fields, manifest))
    collected = requests.groupBy("user_id").agg(F.flatten(F.collect_list(elements)).alias("events"))
    return collected.select("user_id", F.sort_array("events").alias("events"))


def _element(event: Column, fields: tuple[str, ...], manifest: SourceManifest) -> Column:
    split = split_of(event["event_time"], manifest=manifest)
    is_dated = event["event_time"].isNotNull()
    is_mature = is_dated & (event["event_time"] <= F.lit(mature_until(manifest)))
    began_here = split_of(F.col("request_time"), manifest=manifest) == split
    named = {
        "moment": event["moment"],
        "falling_request": -F.col("request_moment"),
        "request_id": F.col("request_id"),
        "position": event["position"],
        "event_id": event["event_id"],
        "request_moment": F.col("request_moment"),
        "split": F.when(is_dated, split),
        "is_target": is_mature & began_here,
    }
    named |= {name: event[name] for name in fields if name not in named}
    return F.struct(*(column.alias(name) for name, column in named.items()))
