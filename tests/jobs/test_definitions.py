"""The graph as it loads: asset keys, groups, dependencies and jobs equal a literal list."""

from typing import Any

import dagster as dg
import pytest

GROUPS = {
    "events": {"raw_events", "rejected_events"},
    "tables": {
        "interactions",
        "item_versions",
        "items",
        "user_versions",
        "users",
        "item_days",
        "item_counters",
        "percentile_cuts",
        "sequence_events",
        "sequences",
    },
    "tokens": {
        "item_text",
        "item_embeddings",
        "semantic_ids",
        "member_prompts",
        "item_prompts",
    },
    "training": {"ranker", "retriever", "prompt_ranker"},
    "evaluation": {
        "ranking_evaluation",
        "retrieval_evaluation",
        "ranking_leaderboard",
        "recipe_search",
    },
    "inference": {"retrieval_index", "expert_plan", "optimized_prompt_ranker"},
    "reports": {"data_docs", "report"},
}
LEADERBOARD = {"ranking_leaderboard"}
SEARCH = {"recipe_search"}
PARTITIONED = {
    "raw_events",
    "rejected_events",
    "interactions",
    "item_days",
    "item_counters",
    "percentile_cuts",
    "sequence_events",
}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from jobs.definitions import defs

    return defs


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, Any]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_groups_hold_exactly_the_named_assets(specs: dict[str, Any]) -> None:
    found: dict[str, set[str]] = {}
    for name, spec in specs.items():
        found.setdefault(spec.group_name, set()).add(name)
    assert found == GROUPS


def test_event_tables_and_only_they_are_partitioned(specs: dict[str, Any]) -> None:
    assert {name for name, spec in specs.items() if spec.partitions_def} == PARTITIONED


def test_every_asset_says_what_it_is_and_whose(specs: dict[str, Any]) -> None:
    for name, spec in specs.items():
        assert spec.description and spec.owners and spec.kinds, name


def test_no_future_reaches_the_training(specs: dict[str, Any]) -> None:
    upstream = {dep.asset_key.to_user_string() for dep in specs["ranker"].deps}
    assert upstream.isdisjoint(GROUPS["evaluation"] | GROUPS["inference"] | GROUPS["reports"])
    assert "sequences" in upstream


def test_one_job_materialises_all_of_it(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("everything")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == set().union(*GROUPS.values()) - LEADERBOARD - SEARCH


def test_jobs_and_schedules_are_exactly_the_named_ones(defs: dg.Definitions) -> None:
    assert {job.name for job in defs.jobs or ()} == {
        "everything",
        "daily_tables",
        "update",
        "retraining",
        "leaderboard",
        "search",
        "table_care",
    }
    sensors = {s.name: s for s in defs.sensors or ()}
    assert {name: s.job_name for name, s in sensors.items()} == {
        "retraining_requests": "retraining"
    }
    found = {s.name: s for s in defs.schedules or () if isinstance(s, dg.ScheduleDefinition)}
    assert {name: (s.cron_schedule, s.job_name) for name, s in found.items()} == {
        "daily_update": ("0 3 * * *", "update"),
        "weekly_care": ("0 4 * * 0", "table_care"),
    }


def test_the_daily_job_ends_with_the_segments_and_runs_their_checks(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("daily_tables")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == PARTITIONED | {"item_versions", "items"}
    checked = {
        key.asset_key.to_user_string() for key in job.asset_layer.asset_graph.asset_check_keys
    }
    assert keys <= checked


def test_retraining_makes_sequences_and_models_anew_and_takes_no_rows_in(
    defs: dg.Definitions,
) -> None:
    job = defs.resolve_job_def("retraining")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys.isdisjoint(LEADERBOARD | SEARCH)
    assert keys >= GROUPS["training"] | (GROUPS["evaluation"] - LEADERBOARD - SEARCH) | {
        "user_versions",
        "users",
        "sequences",
    }
    assert keys.isdisjoint(GROUPS["events"] | PARTITIONED)


def test_the_leaderboard_makes_what_rankers_read_and_no_model(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("leaderboard")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == LEADERBOARD | PARTITIONED | {
        "item_versions",
        "items",
        "sequences",
        "item_text",
        "item_embeddings",
        "semantic_ids",
        "user_versions",
        "users",
    }


def test_the_search_makes_what_models_read_and_no_model(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("search")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == SEARCH | GROUPS["events"] | GROUPS["tables"] | GROUPS["tokens"]


def test_every_table_has_a_blocking_check(defs: dg.Definitions) -> None:
    checks = {
        spec.asset_key.to_user_string()
        for spec in defs.resolve_asset_graph().asset_check_keys
        for spec in [spec]
    }
    tables = GROUPS["events"] | GROUPS["tables"] | GROUPS["tokens"]
    assert tables <= checks


def test_every_step_is_in_the_pool_that_makes_runs_wait(defs: dg.Definitions) -> None:
    for job in ("everything", "daily_tables", "leaderboard", "search"):
        nodes = defs.resolve_job_def(job).graph.node_defs
        assert {node.name: node.pools for node in nodes} == {
            node.name: {"memory"} for node in nodes
        }
