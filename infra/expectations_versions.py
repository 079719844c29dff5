"""Expectations of attributes that change: each id has exactly one version at every instant."""

from dataclasses import replace

from infra.rules import Rule, between, features_named, holds, not_blank
from pipelines.sources.manifest import SourceManifest


def item_version_rules(_manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_versions."""
    return (
        *_one_version_at_a_time("item_id"),
        between("item_index", 1, None),
        holds(
            "identity_once",
            "count_if(is_identity) OVER (PARTITION BY item_id) = 1",
            "exactly one version of an item is the one that its ID is made from",
        ),
        between("duration_ms", 0, None),
        holds(
            "created_time_plausible",
            "year(created_time) BETWEEN 1900 AND 2199",
            "created_time is from 1900 on and before 2200",
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


def user_version_rules(_manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of user_versions."""
    return (*_one_version_at_a_time("user_id"), *_described("text"))


def _one_version_at_a_time(key: str) -> tuple[Rule, ...]:
    following = f"lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from NULLS FIRST)"
    return (
        holds("valid_for_a_while", "valid_to > valid_from", "valid_to is after valid_from"),
        holds(
            "since_ever_once",
            f"count_if(valid_from IS NULL) OVER (PARTITION BY {key}) = 1",
            f"exactly one version of a {key} is valid since ever",
        ),
        holds(
            "no_overlap",
            f"{following} IS NULL OR coalesce(valid_to <= {following}, false)",
            "a version ends when the next one begins, or before",
        ),
        holds(
            "no_gap",
            f"valid_to IS NULL OR coalesce(valid_to >= {following}, false)",
            "a version ends only where the next one begins",
        ),
    )


def _described(*texts: str) -> tuple[Rule, ...]:
    rules = (*(not_blank(column) for column in texts), features_named("features"))
    return tuple(replace(rule, critical=False) for rule in rules)
