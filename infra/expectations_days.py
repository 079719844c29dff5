"""Expectations of single days: whole, fresh, and not too different from the week before."""

from dataclasses import replace

from infra.rules import Rule, between, holds
from pipelines.sources.manifest import SourceManifest
from pipelines.thresholds import thresholds


def raw_day_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of the days of raw_events."""
    limits = thresholds(manifest.source).days
    most = limits.rows_per_user_high
    quiet = limits.quiet.total_seconds()
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        _worded(
            between("row_ratio", limits.row_ratio_low, limits.row_ratio_high),
            f"a day has {limits.row_ratio_low:g} to {limits.row_ratio_high:g} times the rows of "
            f"the median of the {limits.trailing_days} days before it, or of its weekday before",
        ),
        _worded(
            between("rows_per_user_ratio", 1 / most, most),
            f"rows per user are {1 / most:.2g} to {most:g} times those of the days before",
        ),
        _worded(
            between("nameless_rise", None, limits.share_rise),
            f"the share of rows without an id rises by at most {limits.share_rise:g}",
        ),
        _worded(
            between("quiet_seconds", None, quiet),
            f"a day's newest event is at most {quiet / 3600:g} hours before its end",
        ),
    )


def interaction_day_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of the days of interactions."""
    limits = thresholds(manifest.source).days
    rises = {
        "rejected_rise": "rejected rows",
        "repeated_rise": "rows that repeat another",
        "unknown_rise": "rows of unknown items",
    }
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        holds(
            "raw_kept_or_rejected",
            "raw_rows = kept_rows + rejected_rows",
            "every raw row was kept or rejected",
        ),
        _worded(
            between("rejected_fraction", None, limits.rejected_fraction, critical=False),
            f"at most {limits.rejected_fraction:.0%} of a day's rows are rejected",
        ),
        *(
            _worded(
                between(column, None, limits.share_rise),
                f"the share of {what} rises by at most {limits.share_rise:g}",
            )
            for column, what in rises.items()
        ),
        *(
            holds(
                f"action_{index}_rate_steady",
                f"abs(rate_changes[{index}]) <= {limits.rate_change} "
                f"OR abs(rate_deviations[{index}]) <= {limits.rate_deviations}",
                f"the rate of {action} is within {limits.rate_change:.0%} of the days before, or "
                f"within {limits.rate_deviations:g} standard errors",
                critical=action == manifest.primary_action,
            )
            for index, action in enumerate(manifest.actions)
        ),
    )


def _worded(rule: Rule, text: str) -> Rule:
    return replace(rule, text=text)
