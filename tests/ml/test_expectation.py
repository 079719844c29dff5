"""What users on average do: found where it was planted, and a past is measured by it."""

import numpy as np
import pytest

from ml.features import SequenceData
from ml.metrics import normalized_entropy
from ml.ranking.expectation import (
    Evidence,
    Expectation,
    fit_expectation,
    num_weights,
    plain_expectation,
)
from ml.ranking.rates import log_odds
from tests.ml.sequence_examples import changed, expectation, feature_spec, item_table, sequences

ABOUT = {"items": item_table(), "spec": feature_spec()}


def _planted(seed: int) -> tuple[SequenceData, np.ndarray]:
    """Return clicks that depend on the position and on the tag by the hour, and their odds."""
    data = sequences([60] * 100, seed=seed)
    tag = item_table().tags[data.item, 0]
    odds = 1.0 - 0.4 * data.position + np.where((data.hour < 12) == (tag % 2 == 0), 1.0, -1.0)
    clicked = np.random.default_rng(seed + 50).random(len(odds)) < 1 / (1 + np.exp(-odds))
    return changed(data, actions=clicked.astype(np.int32)), odds


def test_it_finds_what_all_users_share() -> None:
    train, _ = _planted(0)
    test, odds = _planted(1)
    found = fit_expectation(train, **ABOUT)
    labels, best = test.labels(0), 1 / (1 + np.exp(-odds))
    reached = 1 - normalized_entropy(labels, found.probability(test, **ABOUT))
    assert reached > 0.9 * (1 - normalized_entropy(labels, best))
    assert found.weights.shape == (num_weights(feature_spec()),)


def test_the_odds_of_a_candidate_do_not_know_its_position() -> None:
    train, _ = _planted(0)
    found = fit_expectation(train, **ABOUT)
    moved = changed(train, position=(train.position + 5) % 12)
    assert np.array_equal(found.log_odds(train, **ABOUT), found.log_odds(moved, **ABOUT))
    gap = found.probability(train, **ABOUT) - found.probability(moved, **ABOUT)
    assert np.abs(gap).max() > 0.2
    later = changed(train, hour=(train.hour + 12) % 24)
    assert not np.array_equal(found.log_odds(train, **ABOUT), found.log_odds(later, **ABOUT))


@pytest.mark.parametrize("action", [0, 1])
def test_one_class_gives_the_base_rate(action: int) -> None:
    data = changed(sequences([20]), actions=np.full(20, action, np.int32))
    found = fit_expectation(data, **ABOUT)
    assert found.rates.tolist() == [action, 0, 0]
    np.testing.assert_allclose(found.log_odds(data, **ABOUT), log_odds(float(action)))
    with pytest.raises(ValueError, match="no target event"):
        fit_expectation(changed(data, is_target=np.zeros(20, bool)), **ABOUT)


def test_unknown_items_and_values_beyond_the_vocabulary_count_as_unknown() -> None:
    data, spec = sequences([6]), feature_spec()
    count = data.num_events
    strange = changed(
        data,
        item=np.full(count, 10_000, np.int32),
        position=np.full(count, 99, np.int32),
        surface=np.full(count, 99, np.int32),
        age=np.full(count, 99, np.int32),
        hour=np.full(count, -1, np.int32),
    )
    known = expectation()
    bare = Expectation(
        rates=known.rates, weights=np.where(np.arange(num_weights(spec)) < 4, known.weights, 0)
    )
    assert np.array_equal(known.probability(strange, **ABOUT), bare.probability(strange, **ABOUT))


def test_evidence_equals_a_plain_loop() -> None:
    data = sequences([12, 1, 20])
    groups = item_table().tags[data.item]
    groups[:, 1] = np.where(groups[:, 1] == groups[:, 0], 0, groups[:, 1])
    labels = data.labels(0)
    expected = np.random.default_rng(3).uniform(0.1, 0.9, data.num_events)
    found = np.stack(Evidence(labels, expected).numbers(data, groups), axis=1)
    row = data.event_row
    for n in range(data.num_events):
        rows = []
        for group in groups[n]:
            past = (row == row[n]) & (data.request < data.request[n])
            past &= (groups == group).any(axis=1) & (group > 0)
            clicks, hoped = labels[past].sum(), expected[past].sum()
            spread = np.sqrt((expected[past] * (1 - expected[past])).sum() + 1)
            lift = np.log((clicks + 0.5) / (hoped + 0.5))
            rows.append((lift, (clicks - hoped) / spread, np.log1p(hoped) / 4))
        wanted = np.sum(rows, axis=0) / max(1, (groups[n] > 0).sum())
        np.testing.assert_allclose(found[n], wanted, atol=1e-9)


def test_the_plain_one_is_the_base_rate_everywhere() -> None:
    data = sequences([30, 30])
    plain = plain_expectation(data, spec=feature_spec())
    rate = data.labels(0).mean()
    np.testing.assert_allclose(plain.probability(data, **ABOUT), np.full(60, rate))
