"""Expectations of the event tables: what came in, what was refused, what was kept."""

from infra.expectations_item_days import arrives_after_event
from infra.rules import Rule, between, holds, one_of, share_between, tolerant
from pipelines.sources.manifest import SourceManifest

MAX_DWELL_BUCKET = 8
_TOLERATED_SHARE = 0.1
_LOCAL = "from_utc_timestamp(event_time, '{zone}')"


def raw_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of raw_events; most of what is wrong here is refused later, so it warns."""
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        tolerant(one_of("kind", ("impression", "action")), share=_TOLERATED_SHARE),
        *(tolerant(rule, share=_TOLERATED_SHARE) for rule in _probabilities()),
        share_between(
            "user_id_share",
            "user_id IS NOT NULL",
            1 - _TOLERATED_SHARE,
            1.0,
            text="rows with a user",
        ),
        share_between(
            "event_time_share",
            "event_time IS NOT NULL",
            1 - _TOLERATED_SHARE,
            1.0,
            text="rows with a usable time",
        ),
    )


def rejected_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of rejected_events."""
    from pipelines.cleaning import REASONS

    return (
        between("event_date", manifest.start_date, manifest.end_date),
        one_of("reason", REASONS),
        holds(
            "payload_is_json",
            "payload IS NULL OR get_json_object(payload, '$') IS NOT NULL",
            "payload is the whole raw row as JSON",
        ),
    )


def interaction_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of interactions."""
    local = _LOCAL.format(zone=manifest.timezone)
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
        share_between("mature_share", "is_mature", 0.5, 1.0, text="share of mature labels"),
        share_between(
            "primary_share",
            f"action_bits & {manifest.primary_bit} > 0",
            0.0001,
            0.9999 if manifest.has_impressions else 1.0,
            text=f"share of rows with {manifest.primary_action}",
        ),
    )


def _probabilities() -> list[Rule]:
    names = ("propensity", "true_probability", "reachable_probability")
    return [between(name, 0.0, 1.0) for name in names]
