"""Weights of events: by place, by age, by propensity; and targets of new events only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ml.ranking.sequence_ranker.event_weights import (
    EventWeightConfig,
    event_weights,
    only_new_targets,
)
from ml.ranking.sequence_ranker.loss import multi_task_loss
from tests.ml.sequence_examples import changed, one_batch, sequences

DAY = 86_400


def test_without_factors_all_events_weigh_one() -> None:
    assert event_weights(sequences([3, 5]), EventWeightConfig()).tolist() == [1.0] * 8


def test_place_weights_end_at_one_and_begin_at_about_a_half() -> None:
    weights = event_weights(sequences([4, 1]), EventWeightConfig(halves_over_sequence=True))
    np.testing.assert_allclose(weights, [0.594604, 0.707107, 0.840896, 1.0, 1.0], atol=1e-6)
    long = event_weights(sequences([1000]), EventWeightConfig(halves_over_sequence=True))
    assert long[0] == pytest.approx(0.5, abs=4e-4)
    assert long[-1] == 1


def test_age_weights_halve_and_undated_events_weigh_as_the_oldest() -> None:
    data = changed(sequences([4]), time=np.array([-1, 0, 60 * DAY, 120 * DAY]))
    weights = event_weights(data, EventWeightConfig(half_life_days=60.0))
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.5, 1.0])


def test_a_part_of_the_events_is_weighed_by_the_age_among_all() -> None:
    config = EventWeightConfig(half_life_days=60.0)
    part = changed(sequences([3]), time=np.array([-1, 60 * DAY, 120 * DAY]))
    weights = event_weights(part, config, span=(0, 180 * DAY))
    np.testing.assert_allclose(weights, [0.125, 0.25, 0.5])
    undated = changed(sequences([1]), time=np.array([-1]))
    assert event_weights(undated, config, span=(0, 60 * DAY)).tolist() == [0.5]
    assert event_weights(undated, config).tolist() == [1.0]


def test_inverse_propensities_are_cut_off_and_unknown_ones_weigh_one() -> None:
    data = changed(sequences([4]), propensity=np.array([1.0, 0.25, 0.01, np.nan]))
    weights = event_weights(data, EventWeightConfig(uses_propensity=True))
    np.testing.assert_allclose(weights, [1, 4, 10, 1])


def test_the_loss_is_normalised_by_the_weights() -> None:
    batch = one_batch(sequences([2]))
    batch = replace(
        batch, weight=torch.tensor([[3.0, 1.0]]), actions=torch.tensor([[[1.0] * 3, [0.0] * 3]])
    )
    logits = torch.tensor([[[1.0] * 3, [0.0] * 3]])
    loss, weight = multi_task_loss(logits, batch)
    assert float(weight) == 4
    assert float(loss) == pytest.approx(3 * 0.313262 + 0.693147, abs=1e-5)


def test_events_before_the_increment_have_no_loss() -> None:
    data = sequences([6], request_size=2)
    fresh = only_new_targets(data, since=int(data.time[2]))
    assert fresh.is_target.tolist() == [False, False, True, True, True, True]
    logits = torch.randn(1, 6, 3)
    loss, _ = multi_task_loss(logits, one_batch(fresh))
    logits[:, :2] += 5
    assert torch.equal(loss, multi_task_loss(logits, one_batch(fresh))[0])


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="half_life_days"):
        EventWeightConfig(half_life_days=0)
    with pytest.raises(ValueError, match="largest_inverse_propensity"):
        EventWeightConfig(largest_inverse_propensity=0.5)
