"""Expectations of sequences: arrays that fit together, in the order of time, inside their split."""

from datetime import UTC, datetime

from infra.expectations_events import MAX_DWELL_BUCKET
from infra.expectations_tables import max_age_bucket
from infra.rules import Rule, between, holds, items_between, one_of
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import SEQUENCES

_ARRAYS = tuple(name for name, kind in SEQUENCES.columns if kind.startswith("array<"))
_PROBABILITIES = ("propensity", "true_probability", "reachable_probability")
_MAX_POSITION = 63


def sequence_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of sequences."""
    from pipelines.splits import SPLITS

    return (
        one_of("split", SPLITS),
        between("user_index", 0, None),
        between("chunk", 0, None),
        between("num_events", 1, None),
        *_shape(),
        *_order(manifest),
        items_between("item_index", 0, 2**31 - 1),
        items_between("action_bits", 0, 2 ** len(manifest.actions) - 1),
        items_between("dwell_bucket", 0, MAX_DWELL_BUCKET),
        items_between("position", 0, _MAX_POSITION),
        items_between("surface_index", 0, len(manifest.surfaces)),
        items_between("local_hour", -1, 23),
        items_between("local_weekday", -1, 6),
        items_between("age_bucket", 0, max_age_bucket()),
        items_between("popularity_percentile", 0, 100),
        items_between("rate_percentile", 0, 100),
        holds(
            "week_counts_fit",
            "forall(zip_with(item_positives_7d, item_impressions_7d, "
            "(p, n) -> coalesce(p >= 0 AND p <= n, false)), ok -> ok)",
            "an item's positives of seven days are at least 0 and at most its impressions",
        ),
        *(_probabilities(name) for name in _PROBABILITIES),
    )


def _shape() -> tuple[Rule, ...]:
    aligned = " AND ".join(f"size({name}) = num_events" for name in _ARRAYS)
    return (
        holds("arrays_aligned", aligned, "every array has num_events elements"),
        holds(
            "targets_counted",
            "size(filter(is_target, t -> t)) = num_targets",
            "num_targets is the number of target events",
        ),
    )


def _order(manifest: SourceManifest) -> tuple[Rule, ...]:
    middle, end = _instant(manifest.validation_start), _instant(manifest.test_start)
    in_split = (
        f"CASE split WHEN 'train' THEN t < {middle} "
        f"WHEN 'validation' THEN t >= {middle} AND t < {end} "
        f"WHEN 'test' THEN t >= {end} ELSE true END"
    )
    dated = "filter(event_time, t -> t IS NOT NULL)"
    first = "array_position(transform(event_time, t -> t IS NOT NULL), true)"
    pairs = "zip_with(event_id, event_time, (e, t) -> CASE WHEN e IS NOT NULL THEN (e, t) END)"
    known = f"filter({pairs}, pair -> pair IS NOT NULL)"
    return (
        holds(
            "events_distinct",
            f"size({known}) = size(array_distinct({known}))",
            "no event stands twice in a sequence",
        ),
        holds(
            "requests_ranked",
            "num_events IS NULL "
            "OR forall(request_index, r -> coalesce(r >= 1 AND r <= num_events, false))",
            "every request_index is a rank: at least 1 and at most num_events",
        ),
        holds(
            "sessions_counted",
            "num_events IS NULL OR (session_index = array_sort(session_index) "
            "AND coalesce(array_min(session_index), 0) >= 0 "
            "AND array_max(session_index) <= num_events)",
            "session_index never falls, and is at least 0 and at most num_events",
        ),
        holds(
            "times_ordered",
            f"{dated} = array_sort({dated})",
            "the events of a sequence stand oldest to newest",
        ),
        holds(
            "undated_first",
            f"{first} = 0 OR {first} = 1 + size(filter(event_time, t -> t IS NULL))",
            "undated history stands before every dated event",
        ),
        holds(
            "targets_dated",
            "forall(zip_with(is_target, event_time, (a, t) -> NOT a OR t IS NOT NULL), ok -> ok)",
            "no undated event is a target",
        ),
        holds(
            "undated_unlogged",
            "forall(zip_with(zip_with(is_shuffled, propensity, "
            "(s, p) -> coalesce(s, false) OR p IS NOT NULL), event_time, "
            "(is_logged, t) -> NOT is_logged OR t IS NOT NULL), ok -> ok)",
            "undated history was not shuffled, and has no propensity",
        ),
        holds(
            "targets_in_split",
            "forall(zip_with(is_target, event_time, "
            f"(a, t) -> NOT a OR t IS NULL OR {in_split}), ok -> ok)",
            "the time of every target lies in its row's split",
        ),
    )


def _probabilities(column: str) -> Rule:
    return holds(
        f"{column}_items_in_range",
        f"forall({column}, p -> p IS NULL OR (p >= 0 AND p <= 1))",
        f"every element of {column} is unknown or between 0 and 1",
    )


def _instant(moment: datetime) -> str:
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return f"TIMESTAMP '{utc:%Y-%m-%d %H:%M:%S.%f}+00:00'"
