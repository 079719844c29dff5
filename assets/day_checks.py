"""Checks of single days: a day that differs too much from the week before it stops the run."""

from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from assets.outcomes import MEMORY_POOL
from assets.partitions import checked_days
from infra.accepted_days import accepted_days
from infra.expectations import suite
from infra.platform import Platform
from pipelines.contract import Table
from pipelines.day_tables import INTERACTION_DAYS, RAW_DAYS
from pipelines.tables import INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS
from pipelines.thresholds import thresholds

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from infra.quality import ExpectationResult

_SHOWN_DAYS = 5
_REMEDY = (
    "correct the log, or accept a day that is as it should be: make accept-day DAY=... WHY=..."
)


@dg.asset_check(asset="raw_events", blocking=True, pool=MEMORY_POOL)
def raw_days_are_as_usual(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> dg.AssetCheckResult:
    """Each day's rows, rows per user, missing ids and newest event are as in the week before."""
    from pipelines.day_drift import raw_day_drift
    from pipelines.day_statistics import raw_day_statistics

    manifest = platform.manifest()
    start, end = checked_days(context, manifest)
    zone, limits = manifest.timezone, thresholds(manifest.source).days
    statistics = raw_day_statistics(
        platform.lakehouse().read(RAW_EVENTS), zone=zone, start=_first(platform, start), end=end
    )
    drift = raw_day_drift(statistics, zone=zone, limits=limits, accepted=_accepted(platform))
    return _judged(context, platform, drift.where(f"event_date >= DATE'{start}'"), RAW_DAYS)


@dg.asset_check(
    asset="interactions", additional_deps=["rejected_events"], blocking=True, pool=MEMORY_POOL
)
def days_are_as_usual(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> dg.AssetCheckResult:
    """No raw row is lost on any day, and refused rows and actions are as in the week before."""
    from pipelines.day_drift import interaction_day_drift
    from pipelines.day_statistics import day_statistics

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    start, end = checked_days(context, manifest)
    statistics = day_statistics(
        lakehouse.read(RAW_EVENTS),
        rejected=lakehouse.read(REJECTED_EVENTS),
        interactions=lakehouse.read(INTERACTIONS),
        manifest=manifest,
        days=(_first(platform, start), end),
    )
    drift = interaction_day_drift(
        statistics,
        num_actions=len(manifest.actions),
        limits=thresholds(manifest.source).days,
        accepted=_accepted(platform),
    )
    return _judged(context, platform, drift.where(f"event_date >= DATE'{start}'"), INTERACTION_DAYS)


def _first(platform: Platform, start: date) -> date:
    """Return the first day that a comparison of the days from `start` on needs."""
    manifest = platform.manifest()
    trailing = thresholds(manifest.source).days.trailing_days
    return max(start - timedelta(days=trailing), manifest.start_date)


def _accepted(platform: Platform) -> list[date]:
    return [date.fromisoformat(d.day) for d in accepted_days(platform.settings().quality)]


def _judged(
    context: dg.AssetCheckExecutionContext, platform: Platform, drift: "DataFrame", table: Table
) -> dg.AssetCheckResult:
    """Hold the days to their suite and name those that break it."""
    rules = suite(table, platform.manifest())
    days = drift.coalesce(1).persist()
    try:
        found = platform.quality().validate(days, table, rules=rules, run_id=context.run.run_id)
        breaches = {rule.name: rule.breach for rule in rules}
        odd = (*found.broken, *found.warned)
        named = [_named(days, result, breaches[result.name]) for result in odd]
    finally:
        days.unpersist()
    return dg.AssetCheckResult(
        passed=not odd,
        severity=dg.AssetCheckSeverity.ERROR if found.broken else dg.AssetCheckSeverity.WARN,
        description="; ".join([*named, _REMEDY]) if odd else None,
        metadata={
            **{r.name: f"{'met' if r.success else 'NOT MET'}: {r.observed}" for r in found.results},
            "seconds": found.seconds,
        },
    )


def _named(days: "DataFrame", result: "ExpectationResult", breach: str | None) -> str:
    """Return what was expected and the days that are otherwise."""
    if breach is None:
        return f"expected: {result.text} ({result.observed})"
    rows = days.where(breach).orderBy("event_date").limit(_SHOWN_DAYS).collect()
    values = [
        f"{row.event_date}" + (f" {row[result.column]:.3g}" if result.column in row else "")
        for row in rows
    ]
    return f"expected: {result.text}; not so on {', '.join(values)}"
