"""The shared-context benchmark in its short form: small histories, no claim about time."""

import json

import pytest

from ml.inference.shared_context import Request
from tests.benchmarks.result_line import print_result
from tests.benchmarks.shared_context import Plan, goals_of, measure


def test_ways_agree_and_token_passes_are_those_of_the_formula(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Plan(
        request=Request(context_events=60, candidates=20),
        rounds=1,
        sizes=("default",),
        devices=("cpu",),
    )
    print_result("shared-context", measure(plan), goals=goals_of(plan))
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = line["figures"]
    assert figures["cpu_default_mvp_token_ratio"] == pytest.approx(20 * 61 / 80)
    assert figures["cpu_default_feed_sr_token_ratio"] == pytest.approx(20 * 121 / 140)
    for scheme in ("mvp", "feed_sr"):
        prefix = f"cpu_default_{scheme}"
        assert figures[f"{prefix}_token_passes_off"] == 0
        assert 0 <= figures[f"{prefix}_largest_difference"] <= 1e-5
        assert 1 < figures[f"{prefix}_flop_ratio"] < figures[f"{prefix}_token_ratio"]
        for name in ("over_recomputed", "over_one_by_one", "share_of_flop_ratio"):
            assert figures[f"{prefix}_{name}"] > 0
    limits = {(goal["figure"], goal["limit"]) for goal in line["goals"]}
    assert {("cpu_default_mvp_over_one_by_one", limit) for limit in (1.5, 3.0)} <= limits
