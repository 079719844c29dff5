"""Expectations of the sums per item and day."""

from infra.rules import Rule, between, holds
from pipelines.sources.manifest import SourceManifest


def item_day_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_days."""
    size = len(manifest.actions)
    zone = manifest.timezone
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        arrives_after_event(),
        between("impressions", 1, None),
        holds(
            "action_counts_aligned",
            f"size(action_counts) = {size}",
            "action_counts has one count per action",
        ),
        holds(
            "action_counts_within_impressions",
            "impressions IS NULL OR "
            "forall(action_counts, n -> coalesce(n >= 0 AND n <= impressions, false))",
            "every count of action_counts is at least 0 and at most impressions",
        ),
        holds(
            "first_event_on_its_day",
            f"to_date(from_utc_timestamp(first_event_time, '{zone}')) = event_date",
            f"first_event_time is on event_date in {zone}",
        ),
    )


def arrives_after_event() -> Rule:
    """Expect no row to arrive on a day before its event's."""
    return holds(
        "arrival_after_event",
        "arrival_date >= event_date",
        "no row arrives on a day before its event's",
    )
