"""Expectations of the catalogue, the counters and the percentile cuts."""

from dataclasses import replace

from infra.rules import Rule, between, features_named, holds, not_blank, one_of, unique
from pipelines.sources.manifest import SourceManifest


def max_age_bucket() -> int:
    """Return the bucket of the oldest items; 0 is that of unknown age."""
    from pipelines.item_numbers import AGE_EDGES_DAYS  # imports Spark, which a suite can wait for

    return len(AGE_EDGES_DAYS) + 1


def item_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of items."""
    return (
        *_dense_index("item_index"),
        between("duration_ms", 0, None),
        holds(
            "seen_after_published",
            "first_seen_time >= created_time",
            "no item is seen before it is published",
            critical=False,
        ),
        holds(
            "tags_not_blank",
            "forall(tags, tag -> coalesce(trim(tag) <> '', false))",
            "no tag is missing or blank",
            critical=False,
        ),
        *_described("author_id", "text"),
    )


def user_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of users."""
    return (*_dense_index("user_index"), *_described("text"))


def counter_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_counters."""
    size = len(manifest.actions)
    return (
        between("event_date", manifest.start_date, manifest.end_date),
        between("impressions_before", 0, None),
        between("impressions_7d", 0, None),
        holds(
            "week_within_total",
            "impressions_7d <= impressions_before",
            "the last seven days have no more impressions than all days before",
        ),
        *(_counts_aligned(column, size) for column in ("action_counts_before", "action_counts_7d")),
        _counts_bounded("action_counts_before", "impressions_before"),
        _counts_bounded("action_counts_7d", "impressions_7d"),
        holds(
            "first_shown_by_the_day",
            "first_shown_date <= event_date",
            "no item is first shown after the day",
        ),
        holds(
            "totals_never_fall",
            "impressions_before >= max(impressions_before) OVER (PARTITION BY item_id "
            "ORDER BY event_date ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)",
            "an item's total never falls from one day to a later one",
        ),
    )


def cut_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of percentile_cuts."""
    from pipelines.item_numbers import FEATURES  # imports Spark, which a suite can wait for

    return (
        one_of("feature", FEATURES),
        between("event_date", manifest.start_date, manifest.end_date),
        between("age_bucket", 0, max_age_bucket()),
        between("num_rows", 1, None),
        holds(
            "bins_aligned",
            "size(bins) = size(counts_below) AND size(bins) > 0",
            "bins and counts_below have the same number of elements, at least one",
        ),
        holds(
            "bins_rise",
            "bins = array_sort(array_distinct(bins))",
            "bins rises strictly",
        ),
        holds(
            "counts_rise_from_zero",
            "counts_below = array_sort(array_distinct(counts_below)) "
            "AND try_element_at(counts_below, 1) = 0",
            "counts_below begins at 0 and rises strictly, as every bin holds rows",
        ),
        holds(
            "counts_below_total",
            "try_element_at(counts_below, -1) < num_rows",
            "fewer rows than all lie below the highest bin",
        ),
    )


def _described(*texts: str) -> tuple[Rule, ...]:
    rules = (*(not_blank(column) for column in texts), features_named("features"))
    return tuple(replace(rule, critical=False) for rule in rules)


def _dense_index(column: str) -> tuple[Rule, ...]:
    return (
        between(column, 1, None),
        unique(column, name=f"{column}_unique"),
        holds(
            f"{column}_dense",
            f"{column} <= count(1) OVER ()",
            f"{column} has no gaps: none is above the number of rows",
        ),
    )


def _counts_aligned(column: str, size: int) -> Rule:
    return holds(
        f"{column}_aligned", f"size({column}) = {size}", f"{column} has one count per action"
    )


def _counts_bounded(column: str, total: str) -> Rule:
    return holds(
        f"{column}_within_impressions",
        f"{total} IS NULL OR forall({column}, n -> coalesce(n >= 0 AND n <= {total}, false))",
        f"every count of {column} is at least 0 and at most {total}",
    )
