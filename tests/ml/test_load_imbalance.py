"""LIS against the hand-made oracles of the replicate-and-quantize notes, section 2.1."""

import numpy as np
import pytest

from ml.inference.expert_plan import choose_replicas
from ml.inference.load_imbalance import imbalance_report, load_imbalance


@pytest.mark.parametrize(
    ("counts", "before", "base", "instances"),
    [
        ([4, 4, 4, 4], 1.0, 1.0, 1.25),
        ([10, 2, 2, 2], 2.5, 1.25, 1.5625),
        ([10, 6, 2, 2], 2.0, 1.2, 1.5),
        ([8, 8, 0, 0], 2.0, 2.0, 2.5),
    ],
)
def test_scores_the_oracle_loads_before_and_after_one_replica(
    counts: list[int], before: float, base: float, instances: float
) -> None:
    replicas = choose_replicas(counts, 1)
    after = load_imbalance(counts, replicas=replicas)
    assert load_imbalance(counts).base == pytest.approx(before)
    assert (after.base, after.instances) == (pytest.approx(base), pytest.approx(instances))


def test_even_load_scores_one_and_one_expert_for_all_scores_experts_over_top_k() -> None:
    assert load_imbalance([7] * 8).base == pytest.approx(1.0)
    assert load_imbalance([10, 10, 0, 0, 0, 0, 0, 0]).base == pytest.approx(8 / 2)


def test_per_batch_score_sees_what_the_whole_set_hides() -> None:
    counts = np.array([[[8, 0]], [[0, 8]]], dtype=np.int64)
    report = imbalance_report(counts)
    assert report.mean == pytest.approx(1.0)
    assert report.per_batch_mean == pytest.approx(2.0)
    assert report.per_batch_worst == pytest.approx(2.0)


def test_layers_are_scored_apart_and_averaged() -> None:
    counts = np.array([[[10, 2, 2, 2], [4, 4, 4, 4]]], dtype=np.int64)
    report = imbalance_report(counts, replicas_LM=[[2, 1, 1, 1], [1, 1, 1, 1]])
    assert report.per_layer == (pytest.approx(1.25), pytest.approx(1.0))
    assert report.mean == pytest.approx(1.125)
    assert report.instances_mean == pytest.approx((1.5625 + 1.0) / 2)


def test_a_layer_without_tokens_has_no_score() -> None:
    assert np.isnan(load_imbalance([0, 0]).base)


@pytest.mark.parametrize(
    ("counts", "replicas"), [([], None), ([1, -1], None), ([1, 1], [1]), ([1, 1], [1, 0])]
)
def test_rejects_impossible_loads(counts: list[int], replicas: list[int] | None) -> None:
    with pytest.raises(ValueError, match="expert"):
        load_imbalance(counts, replicas=replicas)
