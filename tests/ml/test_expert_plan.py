"""The plan: oracles of section 2.2, the memory promise, and real expert loads."""

import json
from pathlib import Path

import numpy as np
import pytest

from ml.inference.expert_plan import (
    ExpertSize,
    LayerPlan,
    Plan,
    PlanConfig,
    Replanning,
    choose_replicas,
    make_plan,
    plan_layer,
    plan_stream,
    quantised_to_pay,
)
from ml.inference.load_imbalance import load_imbalance

HALF = ExpertSize(full_bytes=200, quantised_bytes=100)


@pytest.mark.parametrize(
    ("replicas", "ratio", "expected"),
    [(1, 0.5, 1), (1, 0.5 * 1.02, 2), (1, 0.25, 1), (3, 0.25, 1), (0, 0.5, 0)],
)
def test_number_of_experts_that_pay_matches_the_oracles(
    replicas: int, ratio: float, expected: int
) -> None:
    assert quantised_to_pay(replicas, size_ratio=ratio) == expected


def test_replicas_go_to_the_heaviest_load_per_instance_in_turn() -> None:
    assert choose_replicas([10, 6, 2, 2], 1) == [2, 1, 1, 1]
    assert choose_replicas([10, 6, 2, 2], 2) == [2, 2, 1, 1]
    assert choose_replicas([12, 5, 2, 2], 2) == [3, 1, 1, 1]
    assert choose_replicas([4, 4], 1) == [2, 1]


def test_the_least_important_pays_but_never_a_replicated_original() -> None:
    plan = plan_layer([10, 2, 2, 2], [0.1, 0.9, 0.2, 0.5], size=HALF)
    assert plan == LayerPlan(replicas=(2, 1, 1, 1), quantised=(2,))
    assert plan.num_bytes(HALF) == 4 * 200


def test_baseline_strategies_choose_other_payers() -> None:
    heaviest = plan_layer(
        [10, 9, 2, 2], [0, 1, 2, 3], size=HALF, config=PlanConfig(strategy="heaviest")
    )
    assert heaviest.quantised == (1,)
    chosen = {
        plan_layer(
            [10, 9, 2, 2], [0, 1, 2, 3], size=HALF, config=PlanConfig(strategy="random", seed=seed)
        ).quantised
        for seed in range(20)
    }
    assert chosen == {(1,), (2,), (3,)}


def test_memory_never_grows_over_random_loads_sizes_and_replicas() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        full = int(generator.integers(10, 10_000))
        size = ExpertSize(full_bytes=full, quantised_bytes=int(full * generator.uniform(0.2, 0.6)))
        counts, importance = generator.integers(0, 100, 16), generator.random(16)
        plan = plan_layer(
            counts,
            importance,
            size=size,
            config=PlanConfig(num_replicas=int(generator.integers(4))),
        )
        assert plan.num_bytes(size) <= 16 * size.full_bytes
        assert all(plan.replicas[expert] == 1 for expert in plan.quantised)


def test_a_replica_never_raises_the_imbalance() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        counts = generator.integers(0, 50, 8) + 1
        scores = [
            load_imbalance(counts, replicas=choose_replicas(counts, number)).base
            for number in range(5)
        ]
        assert scores == sorted(scores, reverse=True)


def test_planning_again_gives_the_same_plan_and_survives_json() -> None:
    generator = np.random.default_rng(2)
    counts, importance = generator.integers(0, 99, (3, 8)), generator.random((3, 8))
    plan = make_plan(counts, importance, size=HALF)
    assert make_plan(counts, importance, size=HALF) == plan
    assert Plan.from_json(plan.to_json()) == plan


def test_too_many_replicas_for_the_memory_is_an_error() -> None:
    with pytest.raises(ValueError, match="ask for fewer replicas"):
        plan_layer([9, 1], [1.0, 1.0], size=HALF, config=PlanConfig(num_replicas=2))


def test_replanning_follows_a_shift_only_with_batches_already_served() -> None:
    early, late = [[9, 1, 1, 1]], [[1, 1, 1, 9]]
    counts = np.array([early] * 4 + [late] * 6, dtype=np.int64)
    importance = np.ones((1, 4))
    plans = plan_stream(counts, importance, size=HALF, replanning=Replanning(every=2, window=2))
    served = {start: plan.layers[0].replicas.index(2) for start, plan in plans}
    assert served == {2: 0, 4: 0, 6: 3, 8: 3}
    slow = plan_stream(counts, importance, size=HALF, replanning=Replanning(every=2))
    assert {start: plan.layers[0].replicas.index(2) for start, plan in slow} == {
        2: 0,
        4: 0,
        6: 0,
        8: 0,
    }


def test_one_replica_evens_out_real_expert_loads(real_data: Path) -> None:
    loads = json.loads((real_data / "moe-routing" / "esft_layer_expert_counts.json").read_text())
    for task, layers in loads.items():
        rows = layers.values() if isinstance(layers, dict) else layers
        counts = np.array([_row(row) for row in rows], dtype=np.int64)
        before = np.mean([load_imbalance(row).base for row in counts])
        after = np.mean(
            [load_imbalance(row, replicas=choose_replicas(row, 1)).base for row in counts]
        )
        assert counts.shape[1] == 64, task
        assert 1.0 < after < before, task


def test_a_plan_from_a_tenth_of_real_traffic_is_as_good_as_one_from_all(real_data: Path) -> None:
    routed = np.load(real_data / "moe-routing" / "esft_topk_ids.npz")
    for task in ("intent", "law"):
        whole = _expert_counts(routed[task])
        tokens = np.random.default_rng(0).permutation(routed[task].shape[1])
        tenth = _expert_counts(routed[task][:, tokens[: len(tokens) // 10]])
        best, sampled = (
            np.mean(
                [
                    load_imbalance(load, replicas=choose_replicas(seen, 1)).base
                    for load, seen in zip(whole, counts, strict=True)
                ]
            )
            for counts in (whole, tenth)
        )
        assert best <= sampled < 1.01 * best, task
        # Two experts of almost equal load change places in some layers, which costs nothing.
        assert (whole.argmax(axis=1) == tenth.argmax(axis=1)).mean() >= 0.9, task


def _expert_counts(routed: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(layer.ravel(), minlength=64) for layer in routed])


def _row(row: object) -> list[int]:
    return list(row.values()) if isinstance(row, dict) else list(row)  # type: ignore[call-overload]
