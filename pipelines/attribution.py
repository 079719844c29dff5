"""Find the impression that each action row belongs to.

The rule. An action belongs to an impression of the same user and item. Of those of its own day:

1. an action with an impression id takes the impression with that id;
2. else, an action with a request id takes the impression of that request;
3. else, it takes the latest impression at or before it.

The impression must lie at most `attribution_seconds` before the action, and with an id at most
`clock_tolerance_seconds` after it (clients' clocks jitter). An id that leads nowhere is not
replaced by a guess: the action is an orphan. Of several impressions under one id the earliest
one is taken, ties by event id.

Days. Most sources file an action under the day of its impression, or write both in one row; there
an impression of another day is never looked at. Where a source files action rows under their own
days (`SourceManifest.actions_filed_apart`), an action that finds none on its own day takes one of
the latest day before it that has one under the same rule, the window reaching back over as many
midnights as it is long. So a day's interactions depend on the raw rows of that day and of the
days after it that the window reaches, and a day's orphans on those of that day and the days
before: `first_reached_day` and `last_reached_day` say which, and a run over a range of days that
reads and corrects these leaves what a rebuild of the whole log would.

What this module does not know: an action whose clock puts it on the day before its impression is
an orphan, as the tolerance for clocks ends at midnight.
"""

from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.daypart import end_of_day
from pipelines.sources.manifest import SourceManifest

IMPRESSION = "impression"
ACTION = "action"

_PAIR = ("user_id", "item_id")
_IDS = ("impression_id", "request_id")
_A_DAY = timedelta(days=1)


def first_reached_day(day: date, *, manifest: SourceManifest) -> date:
    """Return the earliest day of the log whose impressions an action of a day can belong to."""
    if not manifest.actions_filed_apart:
        return day
    midnight = end_of_day(day - _A_DAY, zone=manifest.timezone).astimezone(UTC)
    earliest = midnight - timedelta(seconds=manifest.attribution_window_seconds)
    reached = earliest.astimezone(ZoneInfo(manifest.timezone)).date()
    return min(day, max(reached, manifest.start_date))


def last_reached_day(day: date, *, manifest: SourceManifest) -> date:
    """Return the latest day of the log whose actions can belong to an impression of a day."""
    if not manifest.actions_filed_apart:
        return day
    midnight = end_of_day(day, zone=manifest.timezone).astimezone(UTC)
    window = timedelta(seconds=manifest.attribution_window_seconds)
    latest = midnight + window - timedelta(microseconds=1)
    reached = latest.astimezone(ZoneInfo(manifest.timezone)).date()
    return max(day, min(reached, manifest.end_date))


def attribute_actions(
    events: DataFrame,
    *,
    attribution_seconds: int,
    clock_tolerance_seconds: int,
    across_days: bool = False,
) -> DataFrame:
    """Add the id and the day of the impression that each row belongs to.

    Args:
        events: Valid rows in the columns of `RAW_EVENTS`, `event_id` unique within a day.
        attribution_seconds: How long after its impression an action may come.
        clock_tolerance_seconds: How far before its impression an action with an id may lie.
        across_days: Whether impressions of earlier days are looked at.

    Returns:
        The rows with `interaction_id` and `interaction_date`: an impression's own event id and
        date, the impression's for an action, null for an orphan.
    """
    # The widest window comes first: its shuffle serves those over an id as well.
    rows = events.repartition(*_PAIR) if across_days else events
    same_day = {name: Window.partitionBy("event_date", *_PAIR, name) for name in _IDS}
    staged = rows.withColumn("_latest", _latest(across_days=across_days)).withColumns(
        {f"_{name}": F.min(_impression()).over(window) for name, window in same_day.items()}
    )

    def in_reach(found: Column, *, tolerance: int) -> Column:
        delay = (F.unix_micros("event_time") - F.unix_micros(found["event_time"])) / 1_000_000
        return F.when(delay.between(-tolerance, attribution_seconds), found)

    def by_id(name: str) -> Column:
        today = in_reach(F.col(f"_{name}"), tolerance=clock_tolerance_seconds)
        if not across_days:
            return today
        return F.coalesce(today, in_reach(_of_earlier_day(name), tolerance=0))

    found = F.when(F.col("impression_id").isNotNull(), by_id("impression_id"))
    found = found.when(F.col("request_id").isNotNull(), by_id("request_id"))
    found = found.otherwise(in_reach(F.col("_latest"), tolerance=0))
    is_impression = F.col("kind") == IMPRESSION
    names = ("event_id", "event_date")
    own = {
        name: F.when(is_impression, F.col(name)).otherwise(F.col(f"_found.{name}"))
        for name in names
    }
    return (
        staged.withColumn("_found", found)
        .withColumns({"interaction_id": own["event_id"], "interaction_date": own["event_date"]})
        .drop("_found", "_latest", *(f"_{name}" for name in _IDS))
    )


def _impression() -> Column:
    """Return what is to be known of an impression, by time and then id; null for an action."""
    fields = F.struct("event_time", "event_id", "event_date")
    return F.when(F.col("kind") == IMPRESSION, fields)


def _of_earlier_day(name: str) -> Column:
    """Return the first impression under an id on the latest day before the row's that has one."""
    is_first = F.col(f"_{name}.event_id") == F.col("event_id")
    first = F.when(is_first, _impression())
    by_day = Window.partitionBy(*_PAIR, name).orderBy(F.unix_date("event_date"))
    before = by_day.rangeBetween(Window.unboundedPreceding, -1)
    return F.last(first, ignorenulls=True).over(before)


def _latest(*, across_days: bool) -> Column:
    """Return the latest impression at or before a row, of its day or of any day."""
    day = () if across_days else ("event_date",)
    in_time = Window.partitionBy(*day, *_PAIR).orderBy(
        "event_time", F.col("kind") == ACTION, "event_id"
    )
    so_far = in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return F.last(_impression(), ignorenulls=True).over(so_far)
