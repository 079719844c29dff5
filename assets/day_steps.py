"""Refresh the tables of days: what a run over a range of days writes, and what it corrects.

Each step takes the lake as it is and the run's range; the days of the range are written, and
later days whose rows depend on them are corrected where they differ. A step can be repeated: it
compares with what is there, so a run that was killed is mended by the next one.
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING

from infra.errors import UserError
from pipelines.refits import CutRefit
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEQUENCE_EVENTS,
)
from pipelines.version_tables import ITEM_VERSIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from infra.changed_days import Correction
    from infra.lakehouse import Commit, Lakehouse
    from pipelines.contract import Table


def refresh_interactions(
    lakehouse: "Lakehouse",
    manifest: SourceManifest,
    *,
    items: "DataFrame",
    start: date,
    end: date,
) -> "tuple[Commit, Commit]":
    """Split the range's raw rows into rejected rows and labelled impressions, in this order.

    Args:
        lakehouse: The lake; holds the raw rows.
        manifest: The source's description.
        items: The catalogue, at least `item_id`.
        start: First day.
        end: Last day, inclusive.

    Raises:
        UserError: If the range is the whole log and every row of it is rejected.
    """
    from pyspark.sql import functions as F

    from pipelines.cleaning import judge_raw, kept_rows, rejected_rows
    from pipelines.interactions import label_impressions

    raw = lakehouse.read(RAW_EVENTS).where(F.col("event_date").between(start, end))
    judged = judge_raw(raw, items=items, manifest=manifest).persist()
    try:
        if (start, end) == (manifest.start_date, manifest.end_date):
            refuse_if_nothing_is_kept(rejected_rows(judged), kept_rows(judged))
        rejected = lakehouse.overwrite_partition(
            REJECTED_EVENTS, rejected_rows(judged), start=start, end=end
        )
        labelled = label_impressions(kept_rows(judged), manifest=manifest)
        kept = lakehouse.overwrite_partition(INTERACTIONS, labelled, start=start, end=end)
    finally:
        judged.unpersist()
    return rejected, kept


def refresh_item_days(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "Commit":
    """Sum up the range's interactions per item and day."""
    from pyspark.sql import functions as F

    from pipelines.item_days import sum_item_days

    interactions = lakehouse.read(INTERACTIONS).where(F.col("event_date").between(start, end))
    frame = sum_item_days(interactions, manifest=manifest)
    return lakehouse.overwrite_partition(ITEM_DAYS, frame, start=start, end=end)


def refresh_item_counters(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "tuple[Commit, Correction]":
    """Count the range's days, and correct the later days' totals where the range changed them."""
    from pyspark.sql import functions as F

    from infra.changed_days import correct_days
    from pipelines.item_counters import count_items

    item_days = lakehouse.read(ITEM_DAYS)
    counted = count_items(item_days, manifest=manifest, start=start, end=manifest.end_date)
    later = correct_days(
        lakehouse, ITEM_COUNTERS, counted, start=_after(end), end=manifest.end_date
    )
    within = counted.where(F.col("event_date") <= F.lit(end))
    return lakehouse.overwrite_partition(ITEM_COUNTERS, within, start=start, end=end), later


def refresh_percentile_cuts(
    lakehouse: "Lakehouse",
    manifest: SourceManifest,
    *,
    start: date,
    end: date,
    refits: tuple[CutRefit, ...] = (),
) -> "tuple[Commit, Correction]":
    """Fit the range's cuts, and the later days' where the range brought what they must count."""
    from pyspark.sql import functions as F

    from infra.changed_days import correct_days
    from pipelines.item_numbers import item_numbers, mean_rates
    from pipelines.known_counters import known_counters
    from pipelines.percentile_cuts import WINDOW_DAYS, days_to_fit, fit_cuts

    item_days, last = lakehouse.read(ITEM_DAYS), manifest.end_date
    known = known_counters(
        item_days, manifest=manifest, start=start - timedelta(days=WINDOW_DAYS), end=last
    )
    rates = mean_rates(item_days, manifest=manifest)
    versions = lakehouse.read(ITEM_VERSIONS)
    numbers = item_numbers(known, rates=rates, versions=versions, manifest=manifest)
    days = days_to_fit(item_days, refits=refits)
    fitted = fit_cuts(numbers, days=days, start=start, end=last)
    later = correct_days(lakehouse, PERCENTILE_CUTS, fitted, start=_after(end), end=last)
    within = fitted.where(F.col("event_date") <= F.lit(end))
    return lakehouse.overwrite_partition(PERCENTILE_CUTS, within, start=start, end=end), later


def refresh_sequence_events(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "tuple[Commit, Correction]":
    """Write the range's segments, and correct the later days' where the range changed them."""
    from pyspark.sql import functions as F

    from infra.changed_days import correct_days
    from pipelines.event_features import FeatureInputs
    from pipelines.sequence_events import build_sequence_events

    last = manifest.end_date

    def from_day(first: date, last: date) -> "DataFrame":
        def of(table: "Table") -> "DataFrame":
            return lakehouse.read(table).where(F.col("event_date").between(first, last))

        inputs = FeatureInputs(
            versions=lakehouse.read(ITEM_VERSIONS),
            item_days=lakehouse.read(ITEM_DAYS),
            counters=of(ITEM_COUNTERS),
            cuts=of(PERCENTILE_CUTS),
        )
        return build_sequence_events(of(INTERACTIONS), inputs=inputs, manifest=manifest)

    later_days = from_day(_after(end), last)
    later = correct_days(lakehouse, SEQUENCE_EVENTS, later_days, start=_after(end), end=last)
    within = from_day(start, end)
    return lakehouse.overwrite_partition(SEQUENCE_EVENTS, within, start=start, end=end), later


def refuse_if_nothing_is_kept(rejected: "DataFrame", kept: "DataFrame") -> None:
    """Stop before anything is written where every row of the whole log is rejected.

    Raises:
        UserError: Naming the most frequent reasons.
    """
    if not kept.isEmpty():
        return
    counts = sorted(rejected.groupBy("reason").count().collect(), key=lambda row: -row["count"])
    shown = ", ".join(f"{row['reason']} {row['count']:,}" for row in counts[:3]) or "it is empty"
    raise UserError(
        f"no row of the log can be kept ({shown})",
        remedy="compare the log with what the source expects, or correct the mapping",
    )


def _after(day: date) -> date:
    return day + timedelta(days=1)
