"""Metrics against hand-made values, scikit-learn and plain loops."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.metrics import roc_auc_score

from ml.analysis.calibration import calibration_curve
from ml.metrics import (
    EntropyTotals,
    auc,
    calibration_error,
    group_auc,
    log_loss,
    ndcg_at,
    normalized_entropy,
    probability_metrics,
    recall_at,
)

LABELS = np.array([1, 0, 1, 0])
SCORES = np.array([0.8, 0.4, 0.3, 0.1])


def _random(rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.random(rows), 2)
    return (rng.random(rows) < probabilities).astype(int), probabilities


def test_normalized_entropy_of_four_rows_by_hand() -> None:
    loss = -(math.log(0.8) + math.log(0.6) + math.log(0.3) + math.log(0.9)) / 4
    assert normalized_entropy(LABELS, SCORES) == pytest.approx(loss / math.log(2))


def test_the_base_rate_has_normalized_entropy_one() -> None:
    labels = np.array([1, 0, 0, 0, 1])
    assert normalized_entropy(labels, np.full(5, 0.4)) == pytest.approx(1.0, abs=1e-15)


def test_normalized_entropy_falls_when_a_prediction_improves() -> None:
    better = np.array([0.9, 0.4, 0.3, 0.1])
    assert normalized_entropy(LABELS, better) < normalized_entropy(LABELS, SCORES)


def test_weights_count_as_repeated_rows() -> None:
    weights = np.array([2.0, 1.0, 3.0, 1.0])
    repeated = np.repeat(np.arange(4), weights.astype(int))
    assert normalized_entropy(LABELS, SCORES, weights=weights) == pytest.approx(
        normalized_entropy(LABELS[repeated], SCORES[repeated])
    )


def test_totals_do_not_depend_on_the_partition() -> None:
    labels, probabilities = _random()
    whole = EntropyTotals.of(labels, probabilities)
    parts = EntropyTotals()
    for part in np.array_split(np.arange(500), [3, 3, 200, 480]):
        parts += EntropyTotals.of(labels[part], probabilities[part])
    assert parts.normalized_entropy == pytest.approx(whole.normalized_entropy, rel=1e-12)
    assert parts.observed_over_expected == pytest.approx(labels.sum() / probabilities.sum())


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.ones(4, int)])
def test_one_class_is_undefined(labels: np.ndarray) -> None:
    assert math.isnan(normalized_entropy(labels, SCORES))
    assert math.isnan(auc(labels, SCORES))
    assert math.isnan(group_auc(np.zeros(4, int), labels, SCORES))


def test_auc_counts_ties_as_half() -> None:
    assert auc(np.array([1, 0, 1, 0]), np.array([0.5, 0.5, 0.9, 0.1])) == 3.5 / 4


def test_log_loss_clips_and_equals_the_reference() -> None:
    labels, probabilities = _random()
    assert log_loss(labels, np.clip(probabilities, 0.01, 0.99)) == pytest.approx(
        reference_log_loss(labels, np.clip(probabilities, 0.01, 0.99))
    )
    assert log_loss(np.array([1]), np.array([0.0])) == pytest.approx(-math.log(1e-7))


def test_group_auc_of_one_group_is_the_auc() -> None:
    labels, probabilities = _random()
    assert group_auc(np.full(500, 7), labels, probabilities) == pytest.approx(
        roc_auc_score(labels, probabilities)
    )


def test_group_auc_weighs_rows_and_drops_groups_with_one_class() -> None:
    labels, probabilities = _random()
    groups = np.random.default_rng(1).integers(0, 60, 500)
    labels[groups == 3] = 1
    values, weights = [], []
    for group in range(60):
        inside = groups == group
        if labels[inside].min() != labels[inside].max():
            values.append(roc_auc_score(labels[inside], probabilities[inside]))
            weights.append(inside.sum())
    assert len(values) < 60
    assert group_auc(groups, labels, probabilities) == pytest.approx(
        np.average(values, weights=weights)
    )


def test_calibration_error_of_two_bins_by_hand() -> None:
    labels, probabilities = np.array([0, 1, 1, 1]), np.array([0.1, 0.3, 0.6, 0.8])
    assert calibration_error(labels, probabilities, bins=2) == pytest.approx((0.3 + 0.3) / 2)


def test_calibration_curve_has_bins_of_equal_mass() -> None:
    labels, probabilities = _random(300)
    curve = calibration_curve(labels, probabilities, bins=15)
    assert [part.rows for part in curve] == [20] * 15
    assert np.mean([part.predicted for part in curve]) == pytest.approx(probabilities.mean())
    assert np.mean([part.observed for part in curve]) == pytest.approx(labels.mean())
    assert [part.predicted for part in curve] == sorted(part.predicted for part in curve)


def test_ranking_metrics_by_hand() -> None:
    ranks = np.array([1, 3, 11, 10])
    assert recall_at(ranks, k=10) == 0.75
    assert ndcg_at(ranks, k=10) == pytest.approx((1 + 0.5 + 1 / math.log2(11)) / 4)


def test_all_metrics_come_by_name() -> None:
    labels, probabilities = _random()
    metrics = probability_metrics(np.arange(500) // 10, labels, probabilities)
    assert metrics["users"] == 50
    assert metrics["positives"] == labels.sum()
    assert metrics["ne"] == pytest.approx(normalized_entropy(labels, probabilities))
    assert set(metrics) == {
        "ne", "log_loss", "auc", "gauc", "ece", "observed_over_expected", "rows", "positives",
        "users",
    }  # fmt: skip
