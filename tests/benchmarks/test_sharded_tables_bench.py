"""The sharded-tables benchmark in its short form: a small table, no claim about time or memory."""

import json

import numpy as np
import pytest

from tests.benchmarks.result_line import print_result
from tests.benchmarks.sharded_tables import goals_of, measure, traffic, zipf_batches
from tests.benchmarks.sharded_tables_child import WARM_UP, Plan

PLAN = Plan(rows=2001, width=4, examples=32, rounds=1, steps=2)


def test_two_workers_train_the_table_of_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    print_result("sharded-tables", measure(PLAN), goals=goals_of(PLAN))
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = line["figures"]
    assert figures["table_share"] == pytest.approx(1001 / 2001)
    assert figures["largest_difference"] <= 1e-5
    assert figures["largest_move"] > 0.05
    assert 1 <= figures["busiest_owner"] < figures["busiest_owner_blocks"] <= 2
    for name in (
        "create_cpu_seconds",
        "step_seconds",
        "step_cpu_seconds",
        "limit_share",
        "worker_growth_bytes",
    ):
        assert figures[name] > 0
    assert {goal["figure"] for goal in line["goals"]} == {"table_share", "largest_difference"}
    assert "growth_share" in {goal.figure for goal in goals_of(Plan())}


def test_ids_follow_zipfs_law() -> None:
    plan = Plan(rows=50, examples=4000, rounds=1, steps=1, skew=1.0)
    shares = np.bincount(zipf_batches(plan).ravel(), minlength=50) / zipf_batches(plan).size
    assert shares[0] == pytest.approx(1 / sum(1 / k for k in range(1, 51)), rel=0.02)
    assert shares[0] / shares[9] == pytest.approx(10, rel=0.1)


def test_traffic_by_hand() -> None:
    plan = Plan(rows=6, width=4, examples=1, ids=4, rounds=1, steps=1)
    # Worker 0 asks for 0, 1, 3 (two of the other's), worker 1 for 0, 1, 2, 3 (two as well).
    both = np.array([[[0, 1, 3, 3]], [[0, 1, 2, 3]]])
    batches = np.stack([np.zeros_like(both)] * WARM_UP + [both])
    figures = traffic(batches, plan)
    assert figures == {
        "distinct_ids_share": 7 / 8,
        "step_bytes_sent": 2 * (8 + 16) + 2 * 16,
        "busiest_owner": 4 / 3.5,
        "busiest_owner_blocks": 5 / 3.5,
    }
