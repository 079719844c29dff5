"""Refresh the tables of days: what a run over a range of days writes, and what it corrects.

Each step takes the lake as it is and the run's range; the days of the range are written, and
other days whose rows depend on them are corrected where they differ: later ones, and earlier ones
that actions of the range reach (attribution.py). A step can be repeated: it compares with what is
there, so a run that was killed is mended by the next one.
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
    from collections.abc import Callable

    from pyspark.sql import DataFrame

    from infra.changed_days import Correction
    from infra.lakehouse import Commit, Lakehouse
    from pipelines.contract import Table

    Refreshed = tuple[Commit, Correction]

_A_DAY = timedelta(days=1)


def refresh_interactions(
    lakehouse: "Lakehouse",
    manifest: SourceManifest,
    *,
    items: "DataFrame",
    start: date,
    end: date,
) -> "tuple[Refreshed, Refreshed]":
    """Split the range's raw rows into rejected rows and labelled impressions, in this order.

    Where actions are filed apart from their impressions, the raw rows of the days around the range
    that the window reaches are read as well: the interactions of those before it and the rejected
    rows of those after it are corrected.

    Args:
        lakehouse: The lake; holds the raw rows.
        manifest: The source's description.
        items: The catalogue, at least `item_id`.
        start: First day.
        end: Last day, inclusive.

    Returns:
        For each of the two tables the write of the range and the correction of other days.

    Raises:
        UserError: If the range is the whole log and every row of it is rejected.
    """
    from pyspark.sql import functions as F

    from pipelines.cleaning import judge_raw, kept_rows, rejected_rows
    from pipelines.interactions import label_impressions

    first, last = _reached_days(manifest, start=start, end=end)
    raw = lakehouse.read(RAW_EVENTS).where(F.col("event_date").between(first, last))
    judged = judge_raw(raw, items=items, manifest=manifest).persist()
    try:
        if (start, end) == (manifest.start_date, manifest.end_date):
            refuse_if_nothing_is_kept(rejected_rows(judged), kept_rows(judged))
        labelled = label_impressions(kept_rows(judged), manifest=manifest)
        days = (start, end)
        return (
            _refresh(
                lakehouse, REJECTED_EVENTS, rejected_rows(judged), days=days, reach=(start, last)
            ),
            _refresh(lakehouse, INTERACTIONS, labelled, days=days, reach=(first, end)),
        )
    finally:
        judged.unpersist()


def refresh_item_days(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "Refreshed":
    """Sum up the interactions of the range and of the days that its actions reach."""
    from pyspark.sql import functions as F

    from pipelines.item_days import sum_item_days

    first, _ = _reached_days(manifest, start=start, end=end)
    interactions = lakehouse.read(INTERACTIONS).where(F.col("event_date").between(first, end))
    frame = sum_item_days(interactions, manifest=manifest)
    return _refresh(lakehouse, ITEM_DAYS, frame, days=(start, end), reach=(first, end))


def refresh_item_counters(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "Refreshed":
    """Count the range's days, and correct the other days' totals where the range changed them."""
    from pipelines.item_counters import count_items

    (first, _), last = _reached_days(manifest, start=start, end=end), manifest.end_date
    item_days = lakehouse.read(ITEM_DAYS)
    counted = count_items(item_days, manifest=manifest, start=first, end=last)
    return _refresh(lakehouse, ITEM_COUNTERS, counted, days=(start, end), reach=(first, last))


def refresh_percentile_cuts(
    lakehouse: "Lakehouse",
    manifest: SourceManifest,
    *,
    start: date,
    end: date,
    refits: tuple[CutRefit, ...] = (),
) -> "Refreshed":
    """Fit the range's cuts, and the other days' where the range brought what they must count."""
    from pipelines.item_numbers import item_numbers, mean_rates
    from pipelines.known_counters import known_counters
    from pipelines.percentile_cuts import WINDOW_DAYS, days_to_fit, fit_cuts

    (first, _), last = _reached_days(manifest, start=start, end=end), manifest.end_date
    item_days = lakehouse.read(ITEM_DAYS)
    known = known_counters(
        item_days, manifest=manifest, start=first - timedelta(days=WINDOW_DAYS), end=last
    )
    rates = mean_rates(item_days, manifest=manifest)
    versions = lakehouse.read(ITEM_VERSIONS)
    numbers = item_numbers(known, rates=rates, versions=versions, manifest=manifest)
    days = days_to_fit(item_days, refits=refits)
    fitted = fit_cuts(numbers, days=days, start=first, end=last)
    return _refresh(lakehouse, PERCENTILE_CUTS, fitted, days=(start, end), reach=(first, last))


def refresh_sequence_events(
    lakehouse: "Lakehouse", manifest: SourceManifest, *, start: date, end: date
) -> "Refreshed":
    """Write the range's segments, and correct the other days' where the range changed them."""
    from pyspark.sql import functions as F

    from pipelines.event_features import FeatureInputs
    from pipelines.sequence_events import build_sequence_events

    def of_days(first: date, last: date) -> "DataFrame":
        def of(table: "Table") -> "DataFrame":
            return lakehouse.read(table).where(F.col("event_date").between(first, last))

        inputs = FeatureInputs(
            versions=lakehouse.read(ITEM_VERSIONS),
            item_days=lakehouse.read(ITEM_DAYS),
            counters=of(ITEM_COUNTERS),
            cuts=of(PERCENTILE_CUTS),
        )
        return build_sequence_events(of(INTERACTIONS), inputs=inputs, manifest=manifest)

    first, _ = _reached_days(manifest, start=start, end=end)
    reach = (first, manifest.end_date)
    return _refresh(lakehouse, SEQUENCE_EVENTS, of_days, days=(start, end), reach=reach)


def _reached_days(manifest: SourceManifest, *, start: date, end: date) -> tuple[date, date]:
    """Return the first and the last day whose raw rows go together with those of a range."""
    from pipelines.attribution import first_reached_day, last_reached_day

    first = first_reached_day(start, manifest=manifest)
    return first, last_reached_day(end, manifest=manifest)


def _refresh(
    lakehouse: "Lakehouse",
    table: "Table",
    frame: "DataFrame | Callable[[date, date], DataFrame]",
    *,
    days: tuple[date, date],
    reach: tuple[date, date],
) -> "Refreshed":
    """Write the rows of a range of days, and correct the days around it that it may change.

    Args:
        lakehouse: The lake.
        table: Contract of a table of days.
        frame: At least all rows of `reach` as they should be, or what makes those of given days.
        days: First and last day to write.
        reach: First and last day that may differ; holds `days`.
    """
    from pyspark.sql import functions as F

    from infra.changed_days import Correction, correct_days

    def of(first: date, last: date) -> "DataFrame":
        if callable(frame):
            return frame(first, last)
        return frame.where(F.col("event_date").between(first, last))

    (start, end), (first, last) = days, reach
    commit = lakehouse.overwrite_partition(table, of(start, end), start=start, end=end)
    # One look at both sides; where there are two, at the range between them as well.
    low = first if first < start else end + _A_DAY
    high = last if last > end else start - _A_DAY
    if low > high:
        return commit, Correction()
    return commit, correct_days(lakehouse, table, of(low, high), start=low, end=high)


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
