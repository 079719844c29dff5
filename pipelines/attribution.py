"""Find the impression that each action row belongs to.

The rule. An action belongs to an impression of the same user, item and event date (sources file
an action under the day of its impression, so that one day can be run again alone). Among those:

1. an action with an impression id takes the impression with that id;
2. else, an action with a request id takes the impression of that request;
3. else, it takes the latest impression at or before it.

The impression must lie at most `attribution_seconds` before the action, and with an id at most
`clock_tolerance_seconds` after it (clients' clocks jitter). An id that leads nowhere is not
replaced by a guess: the action is an orphan. Of several impressions under one id the earliest
one is taken, ties by event id.

What this module does not know: an action filed under another day than its impression is an
orphan, because looking across days would make one day's result depend on its neighbours.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

IMPRESSION = "impression"
ACTION = "action"

_PAIR = ("event_date", "user_id", "item_id")


def attribute_actions(
    events: DataFrame, *, attribution_seconds: int, clock_tolerance_seconds: int
) -> DataFrame:
    """Add the id of the impression that each row belongs to.

    Args:
        events: Valid rows in the columns of `RAW_EVENTS`, `event_id` unique within a day.
        attribution_seconds: How long after its impression an action may come.
        clock_tolerance_seconds: How far before its impression an action with an id may lie.

    Returns:
        The rows with `interaction_id`: an impression's own event id, the impression's event id
        for an action, null for an orphan.
    """
    impression = F.when(F.col("kind") == IMPRESSION, F.struct("event_time", "event_id"))
    pair_in_time = Window.partitionBy(*_PAIR).orderBy(
        "event_time", F.col("kind") == ACTION, "event_id"
    )
    so_far = pair_in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    in_same_impression = Window.partitionBy(*_PAIR, "impression_id")
    in_same_request = Window.partitionBy(*_PAIR, "request_id")
    has_id = F.col("impression_id").isNotNull() | F.col("request_id").isNotNull()
    found = (
        F.when(F.col("impression_id").isNotNull(), F.min(impression).over(in_same_impression))
        .when(F.col("request_id").isNotNull(), F.min(impression).over(in_same_request))
        .otherwise(F.last(impression, ignorenulls=True).over(so_far))
    )
    earliest_delay = F.when(has_id, F.lit(-clock_tolerance_seconds)).otherwise(F.lit(0))
    in_window = _seconds_since("_found").between(earliest_delay, F.lit(attribution_seconds))
    return (
        events.withColumn("_found", found)
        .withColumn(
            "interaction_id",
            F.when(F.col("kind") == IMPRESSION, F.col("event_id")).when(
                in_window, F.col("_found.event_id")
            ),
        )
        .drop("_found")
    )


def _seconds_since(found: str) -> Column:
    micros = F.unix_micros("event_time") - F.unix_micros(f"{found}.event_time")
    return micros / 1_000_000
