"""Expectations of the daily segments that sequences are joined from."""

from infra.expectations_events import MAX_DWELL_BUCKET, shuffled_share
from infra.expectations_item_days import arrives_after_event
from infra.expectations_tables import max_age_bucket
from infra.rules import Rule, between, holds
from pipelines.sources.manifest import SourceManifest
from pipelines.thresholds import thresholds

_PROBABILITIES = ("propensity", "true_probability", "reachable_probability")


def segment_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of sequence_events."""
    highest = {
        "action_bits": 2 ** len(manifest.actions) - 1,
        "dwell_bucket": MAX_DWELL_BUCKET,
        "position": None,
        "surface_index": len(manifest.surfaces),
        "age_bucket": max_age_bucket(),
        "popularity_percentile": 100,
        "rate_percentile": 100,
    }
    lowest_hour = 0 if manifest.has_dates else -1
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        arrives_after_event(),
        *(between(name, 0, high) for name, high in highest.items()),
        between("local_hour", lowest_hour, 23),
        between("local_weekday", lowest_hour, 6),
        *(between(name, 0.0, 1.0) for name in _PROBABILITIES),
        shuffled_share(thresholds(manifest.source).tables.shuffled_fraction),
        holds(
            "week_counts_fit",
            "item_positives_7d >= 0 AND item_positives_7d <= item_impressions_7d",
            "an item's positives of seven days are at least 0 and at most its impressions",
        ),
    )
