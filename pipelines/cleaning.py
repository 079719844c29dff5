"""Split raw rows into kept and rejected ones: every row goes to exactly one side.

Reasons are tried in the order of `REASONS`; the first that applies is recorded. Duplicates are
looked for among the rows that pass the checks on a single row, within an event date, so that a
bad copy never displaces a good row and one day can be run again alone.
"""

from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.attribution import ACTION, IMPRESSION, attribute_actions
from pipelines.daypart import end_of_day, local_date
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS, REJECTED_EVENTS

REASONS = (
    "unparsable",  # the source's text could not be read into the required columns
    "missing_event_id",
    "unknown_kind",  # neither an impression nor an action
    "missing_user",
    "missing_item",
    "missing_time",
    "impossible_time",  # outside the log, filed under a wrong day, or received before it happened
    "out_of_range",  # a negative number, or a propensity outside (0, 1]
    "unknown_action",  # an action that the manifest does not name
    "unknown_item",  # an item that the catalogue does not hold
    "exact_duplicate",  # a copy of another row, all columns equal
    "key_duplicate",  # another row has the same event id and wins
    "orphan_action",  # no impression within reach
)

_COLUMNS = RAW_EVENTS.column_names
_INTERACTION = ("interaction_id", "interaction_date")
_JSON = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX", "timeZone": "UTC"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CleaningRules:
    """Hold the tolerances of cleaning.

    Attributes:
        attribution_seconds: How long after its impression an action may come.
        clock_tolerance_seconds: How far clocks may disagree before a time is impossible.
    """

    attribution_seconds: int = 86_400
    clock_tolerance_seconds: int = 300

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a duration is negative.
        """
        if self.attribution_seconds < 0 or self.clock_tolerance_seconds < 0:
            raise ValueError("attribution_seconds and clock_tolerance_seconds must be >= 0")


def split_raw(
    raw: DataFrame,
    *,
    items: DataFrame | None,
    manifest: SourceManifest,
    rules: CleaningRules | None = None,
) -> tuple[DataFrame, DataFrame]:
    """Split raw rows so that raw = kept + rejected, row for row.

    Args:
        raw: Rows of `RAW_EVENTS`, any whole days.
        items: The catalogue, at least `item_id`; None where the source has none, and then no
            item is unknown.
        manifest: The source's description.
        rules: Tolerances; by default the manifest's attribution window.

    Returns:
        The frames of `kept_rows` and `rejected_rows`.
    """
    judged = judge_raw(raw, items=items, manifest=manifest, rules=rules)
    return kept_rows(judged), rejected_rows(judged)


def judge_raw(
    raw: DataFrame,
    *,
    items: DataFrame | None,
    manifest: SourceManifest,
    rules: CleaningRules | None = None,
) -> DataFrame:
    """Add to each raw row why it is rejected, or the interaction that it belongs to.

    Of rows with the same event id on the same day, the one that the log received last is kept
    (an unknown arrival loses), then the one with the greatest values, column by column in the
    contract's order, null lowest.

    Args:
        raw: Rows of `RAW_EVENTS`, any whole days.
        items: The catalogue, at least `item_id`, or None.
        manifest: The source's description.
        rules: Tolerances; by default the manifest's attribution window.

    Returns:
        The columns of `RAW_EVENTS`, `reason` (null for a kept row), `interaction_id` and
        `interaction_date` (event id and day of the impression that a kept row belongs to, its
        own for an impression or in a log of positives only).
    """
    rules = rules or CleaningRules(attribution_seconds=manifest.attribution_window_seconds)
    checked = _flag_known_items(raw, items).withColumn("reason", _row_reason(manifest, rules))
    judged = checked.withColumn("reason", _duplicate_reason())
    unique = judged.where(F.col("reason").isNull()).select(*_COLUMNS)
    if manifest.has_impressions:
        attributed = attribute_actions(
            unique,
            attribution_seconds=rules.attribution_seconds,
            clock_tolerance_seconds=rules.clock_tolerance_seconds,
            across_days=manifest.actions_filed_apart,
        )
    else:
        attributed = unique.withColumns(
            {"interaction_id": F.col("event_id"), "interaction_date": F.col("event_date")}
        )
    orphan = F.when(F.col("interaction_id").isNull(), F.lit("orphan_action"))
    refused = judged.where(F.col("reason").isNotNull()).select(
        *_COLUMNS,
        "reason",
        F.lit(None).cast("string").alias("interaction_id"),
        F.lit(None).cast("date").alias("interaction_date"),
    )
    return attributed.select(*_COLUMNS, orphan.alias("reason"), *_INTERACTION).unionByName(refused)


def kept_rows(judged: DataFrame) -> DataFrame:
    """Return the kept rows of `judge_raw`, without the reason."""
    return judged.where(F.col("reason").isNull()).select(*_COLUMNS, *_INTERACTION)


def rejected_rows(judged: DataFrame) -> DataFrame:
    """Return rows of `REJECTED_EVENTS`; the payload is the raw row as JSON, nulls left out."""
    return _with_payload(judged.where(F.col("reason").isNotNull()))


def _flag_known_items(raw: DataFrame, items: DataFrame | None) -> DataFrame:
    columns = raw.select(*_COLUMNS)
    if items is None:
        return columns.withColumn("is_known", F.lit(True))
    known = items.select("item_id").distinct().withColumn("is_known", F.lit(True))
    return columns.join(known, on="item_id", how="left")


def _row_reason(manifest: SourceManifest, rules: CleaningRules) -> Column:
    lacks = {name: F.trim(name) == "" for name in ("event_id", "user_id", "item_id")}
    lacks = {name: F.col(name).isNull() | blank for name, blank in lacks.items()}
    is_kind = F.coalesce(F.col("kind").isin(IMPRESSION, ACTION), F.lit(False))
    no_time = F.col("event_time").isNull()
    lacks_any = ~is_kind | lacks["user_id"] | lacks["item_id"] | no_time
    names = F.array(*(F.lit(name) for name in manifest.actions))
    strange_actions = F.size(F.array_except("actions", names)) > 0
    conditions = {
        "unparsable": F.col("raw_text").isNotNull() & lacks_any,
        "missing_event_id": lacks["event_id"],
        "unknown_kind": ~is_kind,
        "missing_user": lacks["user_id"],
        "missing_item": lacks["item_id"],
        "missing_time": no_time,
        "impossible_time": _is_impossible_time(manifest, rules),
        "out_of_range": _is_out_of_range(),
        "unknown_action": F.col("actions").isNotNull() & strange_actions,
        "unknown_item": F.col("is_known").isNull(),
    }
    return F.coalesce(*(F.when(holds, F.lit(name)) for name, holds in conditions.items()))


def _is_impossible_time(manifest: SourceManifest, rules: CleaningRules) -> Column:
    time, zone = F.col("event_time"), manifest.timezone
    first = end_of_day(manifest.start_date - timedelta(days=1), zone=zone)
    end = end_of_day(manifest.end_date, zone=zone)
    is_with_impression = manifest.has_impressions and not manifest.actions_filed_apart
    is_elsewhere = (F.col("kind") == ACTION) & F.lit(is_with_impression)
    grace = F.when(is_elsewhere, F.lit(rules.attribution_seconds)).otherwise(F.lit(0))
    seconds = F.unix_micros(time) / 1_000_000
    outside = (seconds < first.timestamp()) | (seconds >= grace + end.timestamp())
    misfiled = ~is_elsewhere & (local_date(time, zone=zone) != F.col("event_date"))
    lead = seconds - F.unix_micros("arrival_time") / 1_000_000
    too_early = F.coalesce(lead > rules.clock_tolerance_seconds, F.lit(False))
    return outside | misfiled | too_early


def _is_out_of_range() -> Column:
    negative = [F.col(name) < 0 for name in ("dwell_ms", "duration_ms", "position")]
    improper = [(F.col("propensity") <= 0) | (F.col("propensity") > 1)]
    return F.greatest(*(F.coalesce(bad, F.lit(False)) for bad in negative + improper))


def _duplicate_reason() -> Column:
    """Keep a row's own reason; else compare it with the rows of its key.

    Rows that already have a reason are spread by their hash, so that a million rows without an
    id do not meet in one task.
    """
    spread = F.xxhash64(*_COLUMNS).cast("string")
    key = F.when(F.col("reason").isNull(), F.col("event_id")).otherwise(spread)
    order = [F.col(name).desc_nulls_last() for name in ("arrival_time", *_COLUMNS)]
    same_key = Window.partitionBy("event_date", F.col("reason").isNull(), key).orderBy(*order)
    row = F.struct(*_COLUMNS)
    rank = F.row_number().over(same_key)
    repeats_previous = row.eqNullSafe(F.lag(row).over(same_key))
    duplicate = F.when(
        rank > 1, F.when(repeats_previous, "exact_duplicate").otherwise("key_duplicate")
    )
    return F.coalesce(F.col("reason"), duplicate)


def _with_payload(refused: DataFrame) -> DataFrame:
    payload = F.to_json(F.struct(*_COLUMNS), _JSON)
    return refused.withColumn("payload", payload).select(*REJECTED_EVENTS.column_names)
