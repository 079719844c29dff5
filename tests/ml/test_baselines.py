"""Logistic regression and popularity: their history looks back only, and they learn."""

import numpy as np
import pytest

from ml.features import SequenceData
from ml.metrics import normalized_entropy
from ml.ranking.history import PastSums
from ml.ranking.logistic_regression import BLOCKS, LogisticRegressionConfig, fit_and_score
from ml.ranking.popularity import base_rate, popularity_baseline
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences


def _count_by_loop(
    data: SequenceData, groups: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shown, positive = np.zeros(groups.shape), np.zeros(groups.shape)
    for row in range(data.num_rows):
        for n in range(data.offsets[row], data.offsets[row + 1]):
            for m in range(data.offsets[row], n):
                if data.request[m] < data.request[n]:
                    same = np.array([g > 0 and g in groups[m] for g in groups[n]])
                    shown[n] += same
                    positive[n] += same * labels[m]
    return shown, positive


@pytest.mark.parametrize("request_size", [1, 3])
def test_past_counts_equal_a_plain_loop(request_size: int) -> None:
    data = sequences([12, 1, 20], request_size=request_size)
    groups = item_table().tags[data.item]
    groups[:, 1] = np.where(groups[:, 1] == groups[:, 0], 0, groups[:, 1])
    labels = data.labels(0)
    past = PastSums(data, groups)
    shown, positive = _count_by_loop(data, groups, labels)
    assert np.array_equal(past.before(np.ones(data.num_events)), shown)
    assert np.array_equal(past.before(labels), positive)


def test_past_counts_do_not_depend_on_the_future() -> None:
    data = sequences([18])
    past = PastSums(data, np.ones(18, np.int64))
    before = past.before(data.labels(0))
    flipped = data.labels(0)
    flipped[9:] = 1 - flipped[9:]
    after = past.before(flipped)
    assert np.array_equal(before[:12], after[:12])
    assert not np.array_equal(before[12:], after[12:])


def _planted_splits() -> dict[str, SequenceData]:
    """Return sequences whose click depends on the user's taste for the item's first tag."""
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        data = sequences([30] * 200, split=split, seed=seed)
        taste = np.random.default_rng(9).normal(size=(201, 6)) * 2
        logit = taste[data.user[data.event_row], item_table().tags[data.item, 0]]
        logit = logit - 0.15 * data.position
        draw = np.random.default_rng(seed).random(data.num_events)
        click = (draw < 1 / (1 + np.exp(-logit))).astype(np.int32)
        splits[split] = changed(data, actions=data.actions & ~1 | click)
    return splits


def test_logistic_regression_uses_the_past_and_popularity_the_position() -> None:
    splits = _planted_splits()
    labels = splits["test"].labels(0)
    options = {"items": item_table(), "spec": feature_spec(), "action": "click"}
    scores = {
        "base": base_rate(splits, spec=feature_spec(), action="click"),
        "popularity": popularity_baseline(splits, **options).probabilities,
        "regression": fit_and_score(splits, **options).probabilities,
    }
    entropy = {name: normalized_entropy(labels, values) for name, values in scores.items()}
    assert entropy["base"] == pytest.approx(1.0, abs=0.005)
    assert entropy["popularity"] < 0.985
    assert entropy["regression"] < entropy["popularity"] - 0.05


def test_the_regression_is_the_same_when_the_test_labels_of_a_request_change() -> None:
    splits = _planted_splits()
    options = {"items": item_table(), "spec": feature_spec(), "action": "click"}
    config = LogisticRegressionConfig(blocks=BLOCKS, strengths=(0.1,))
    before = fit_and_score(splits, config=config, **options).probabilities.reshape(200, 30)
    test = splits["test"]
    actions = test.actions.copy().reshape(200, 30)
    actions[:, 15:18] ^= 1
    splits["test"] = changed(test, actions=actions.ravel())
    after = fit_and_score(splits, config=config, **options).probabilities.reshape(200, 30)
    assert np.array_equal(before[:, :18], after[:, :18])
    assert (before[:, 18:] != after[:, 18:]).mean() > 0.9


def test_one_class_and_unknown_blocks_are_refused() -> None:
    splits = _planted_splits()
    splits["train"] = changed(splits["train"], actions=splits["train"].actions & ~1)
    with pytest.raises(ValueError, match="one class only"):
        fit_and_score(splits, items=item_table(), spec=feature_spec(), action="click")
    with pytest.raises(ValueError, match="unknown feature block 'magic'"):
        LogisticRegressionConfig(blocks=("magic",))
