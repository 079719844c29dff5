"""Late numbers: equal to a count by hand, and blind to their own request."""

from dataclasses import replace

import numpy as np
import pytest

from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.expectation import plain_expectation
from ml.ranking.numeric_features import number_names, numeric_features
from ml.ranking.rates import base_rates
from tests.ml.sequence_examples import changed, expectation, feature_spec, item_table, sequences


def _numbers(data: SequenceData) -> np.ndarray:
    return numeric_features(
        data, items=item_table(), spec=feature_spec(), expectation=expectation()
    )


def test_numbers_equal_a_count_by_hand() -> None:
    # Requests (0, 1), (2,), (3,); items 1 and 2 share tag 1 and have authors 3 and 4.
    data = changed(
        sequences([4]),
        item=np.array([1, 2, 2, 1], np.int32),
        request=np.array([0, 0, 1, 2], np.int32),
        actions=np.array([1, 0, 3, 0], np.int32),
        impressions_7d=np.array([0, 90, 90, 90], np.int32),
        positives_7d=np.array([0, 15, 15, 15], np.int32),
    )
    items = ItemTable(
        tags=np.array([[0, 0], [1, 2], [1, 0]], np.int32),
        codes=np.zeros((3, 0), np.int32),
        author=np.array([0, 3, 4], np.int32),
        embedding=np.zeros((3, 0), np.float32),
        tag_names=np.array(["x", "y"]),
    )
    spec = FeatureSpec(
        num_items=2, actions=("click", "like"), primary_action="click", num_tags=3, num_authors=5
    )
    known = plain_expectation(changed(data, actions=np.array([1, 0, 1, 0], np.int32)), spec=spec)
    known = replace(known, rates=np.array([0.5, 0.1]))
    numbers = numeric_features(data, items=items, spec=spec, expectation=known)
    named = dict(zip(number_names(spec), numbers.T, strict=True))

    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    # 10 prior events at the base rate: (15 + 5) / (90 + 10).
    np.testing.assert_allclose(named["item_rate_7d"], [0, *[odds(0.2)] * 3], atol=1e-6)
    np.testing.assert_allclose(named["item_count_7d"], [0, *[np.log(91) / 4] * 3], atol=1e-6)
    np.testing.assert_allclose(named["user_past_count"], np.log([1, 1, 3, 4]) / 4, atol=1e-6)
    clicks = [0, 0, odds(6 / 12), odds(7 / 13)]
    np.testing.assert_allclose(named["user_past_rate_click"], clicks, atol=1e-6)
    likes = [0, 0, odds(1 / 12) - odds(0.1), odds(2 / 13) - odds(0.1)]
    np.testing.assert_allclose(named["user_past_rate_like"], likes, atol=1e-6)
    # The last event's tags: 1 was shown 3 times with 2 clicks, 2 once with 1 click.
    tag = [0, 0, odds(6 / 12), (odds(7 / 13) + odds(6 / 11)) / 2]
    np.testing.assert_allclose(named["tag_past_rate_click"], tag, atol=1e-6)
    tag_count = [0, 0, np.log(3) / 4, (np.log(4) + np.log(2)) / 8]
    np.testing.assert_allclose(named["tag_past_count"], tag_count, atol=1e-6)
    for name in ("item", "author"):
        past = [0, 0, odds(5 / 11), odds(6 / 11)]
        np.testing.assert_allclose(named[f"{name}_past_rate_click"], past, atol=1e-6)
        count = [0, 0, np.log(2) / 4, np.log(2) / 4]
        np.testing.assert_allclose(named[f"{name}_past_count"], count, atol=1e-6)
    # Half of the events were expected to be clicked: 1 of the first two, 2 of three.
    np.testing.assert_allclose(named["expected_log_odds"], np.zeros(4), atol=1e-6)
    lift = [0, 0, np.log(1.5 / 1.5), np.log(2.5 / 2.0)]
    np.testing.assert_allclose(named["user_past_lift"], lift, atol=1e-6)
    surprise = [0, 0, 0, 0.5 / np.sqrt(3 / 4 + 1)]
    np.testing.assert_allclose(named["user_past_surprise"], surprise, atol=1e-6)
    expected = np.log([1, 1, 2, 2.5]) / 4
    np.testing.assert_allclose(named["user_past_expected"], expected, atol=1e-6)
    tag_lift = [0, 0, 0, (np.log(2.5 / 2.0) + np.log(1.5 / 1.0)) / 2]
    np.testing.assert_allclose(named["tag_past_lift"], tag_lift, atol=1e-6)


@pytest.mark.parametrize("bit", [0, 1, 2])
def test_an_outcome_reaches_later_requests_only(bit: int) -> None:
    data = sequences([18, 18])
    actions = data.actions.copy()
    actions[7] ^= 1 << bit  # event 7 is the second of request 2, events 6..8
    before, after = _numbers(data), _numbers(changed(data, actions=actions))
    assert np.array_equal(before[:9], after[:9])
    assert (before[9:18] != after[9:18]).any(axis=1).all()
    assert np.array_equal(before[18:], after[18:])


def test_numbers_are_finite_and_about_unit_scale_even_for_an_action_that_never_happened() -> None:
    data = sequences([60] * 5)
    numbers = numeric_features(
        data,
        items=item_table(),
        spec=feature_spec(),
        expectation=expectation(rates=(0.5, 0.0, 1.0)),
    )
    assert numbers.dtype == np.float32
    assert numbers.shape == (300, len(number_names(feature_spec())))
    assert np.isfinite(numbers).all()
    assert np.abs(_numbers(data)).max() < 5


def test_base_rates_count_target_events_of_each_action() -> None:
    data = changed(
        sequences([4]),
        actions=np.array([7, 1, 3, 0], np.int32),
        is_target=np.array([False, True, True, True]),
    )
    np.testing.assert_allclose(base_rates(data, spec=feature_spec()), [2 / 3, 1 / 3, 0])
    with pytest.raises(ValueError, match="no target event"):
        base_rates(changed(data, is_target=np.zeros(4, bool)), spec=feature_spec())


def test_one_rate_per_action_is_required() -> None:
    with pytest.raises(ValueError, match="one number for each"):
        numeric_features(
            sequences([3]),
            items=item_table(),
            spec=feature_spec(),
            expectation=expectation(rates=(0.5,)),
        )
