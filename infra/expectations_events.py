"""Expectations of the event tables: what came in, what was refused, what was kept."""

from infra.expectations_item_days import arrives_after_event
from infra.rules import (
    Rule,
    between,
    holds,
    not_blank,
    one_of,
    share_between,
    tolerant,
    usually_present,
)
from pipelines.sources.manifest import SourceManifest
from pipelines.thresholds import thresholds

MAX_DWELL_BUCKET = 8
_LOCAL = "from_utc_timestamp(event_time, '{zone}')"


def raw_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of raw_events; most of what is wrong here is refused later, so it warns."""
    limits = thresholds(manifest.source).tables
    share = limits.odd_raw_fraction
    unusual = (
        one_of("kind", ("impression", "action")),
        *_probabilities(),
        *(between(name, 0, None) for name in ("dwell_ms", "duration_ms", "position")),
        one_of("surface", manifest.surfaces),
        *(not_blank(name) for name in ("impression_id", "request_id")),
        holds(
            "actions_known",
            f"size(array_except(actions, {_texts(manifest.actions)})) = 0",
            f"every action is one of {', '.join(manifest.actions)}",
        ),
        holds(
            "arrival_follows_event",
            "unix_micros(arrival_time) - unix_micros(event_time) "
            f">= -{limits.clock_tolerance_seconds * 1_000_000}",
            f"no row arrived over {limits.clock_tolerance_seconds} seconds before its event",
        ),
        holds("parsed", "raw_text IS NULL", "the source's text could be read"),
    )
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        *(tolerant(rule, share=share) for rule in unusual),
        *(
            usually_present(name, share=share)
            for name in ("event_id", "user_id", "item_id", "event_time")
        ),
        shuffled_share(limits.shuffled_fraction),
    )


def rejected_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of rejected_events."""
    from pipelines.cleaning import REASONS

    return (
        between("event_date", manifest.start_date, manifest.end_date),
        one_of("reason", REASONS),
        holds(
            "event_id_kept",
            "event_id IS NOT NULL OR reason IN ('unparsable', 'missing_event_id')",
            "a refused row keeps its event_id unless that is why it was refused",
        ),
        holds(
            "payload_is_json",
            "payload IS NULL OR get_json_object(payload, '$') IS NOT NULL",
            "payload is the whole raw row as JSON",
        ),
    )


def interaction_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of interactions."""
    local = _LOCAL.format(zone=manifest.timezone)
    limits = thresholds(manifest.source).tables
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        between("local_hour", 0, 23),
        between("local_weekday", 0, 6),
        between("action_bits", 0, 2 ** len(manifest.actions) - 1),
        between("dwell_ms", 0, None),
        between("dwell_bucket", 0, MAX_DWELL_BUCKET),
        between("duration_ms", 0, None),
        between("position", 0, None),
        one_of("surface", manifest.surfaces),
        between("num_source_rows", 1, None),
        holds(
            "later_days_counted",
            "later_days IS NULL OR (size(later_days) BETWEEN 1 AND num_source_rows - 1 "
            "AND forall(later_days, days -> days > 0))",
            "rows filed under later days are fewer than all rows",
        ),
        arrives_after_event(),
        *_probabilities(),
        holds(
            "local_hour_matches_time",
            f"hour({local}) = local_hour",
            f"local_hour is the hour of event_time in {manifest.timezone}",
            critical=False,
        ),
        holds(
            "local_weekday_matches_time",
            f"weekday({local}) = local_weekday",
            f"local_weekday is the weekday of event_time in {manifest.timezone}",
            critical=False,
        ),
        shuffled_share(limits.shuffled_fraction),
        share_between(
            "primary_share",
            f"action_bits & {manifest.primary_bit} > 0",
            limits.primary_fraction_low,
            limits.primary_fraction_high if manifest.has_impressions else 1.0,
            text=f"share of rows with {manifest.primary_action}",
        ),
    )


def _probabilities() -> list[Rule]:
    names = ("propensity", "true_probability", "reachable_probability")
    return [between(name, 0.0, 1.0) for name in names]


def shuffled_share(highest: float) -> Rule:
    """Expect at most this share of rows to be uniformly shuffled; only a warning."""
    return share_between(
        "shuffled_share",
        "coalesce(is_shuffled, false)",
        0.0,
        highest,
        text="share of uniformly shuffled rows",
    )


def _texts(names: tuple[str, ...]) -> str:
    quoted = ", ".join("'" + name.replace("'", "\\'") + "'" for name in names)
    return f"array({quoted})"
