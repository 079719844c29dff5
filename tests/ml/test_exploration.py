"""Exploring with a ranker: means are the model, one draw per member and hour, doubt reorders."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ml.ranking.bayesian_last_layer import Posterior, PosteriorConfig
from ml.ranking.crosses import cross_keys
from ml.ranking.sequence_ranker.exploration import (
    Explorer,
    Seen,
    seen_candidates,
    seen_targets,
    split_seen,
)
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for
from tests.ml.sequence_examples import (
    feature_spec,
    item_table,
    one_batch,
    sequences,
    small_model,
)

KEEP_ALL = PosteriorConfig(prior_deviation=0.5, memory=1.0)


def _hours(count: int) -> np.ndarray:
    return np.full(count, 480_000)


def _rows(features: list[list[float]] | np.ndarray) -> Seen:
    """Return events of one action to whose logits nothing is added."""
    return Seen(features=np.array(features, np.float64), added=np.zeros((len(features), 1)))


@pytest.mark.parametrize(
    "parts",
    [
        {"head": "mlp"},
        {"head": "linear", "position_offsets": True},
        {"head": "parallel_dcn", "late_numbers": True, "wide_crosses": 32},
    ],
)
def test_without_width_the_scores_are_the_models(parts: dict[str, Any]) -> None:
    model, data = small_model(**parts), sequences([9, 12, 6])
    if model.wide is not None:
        keys = np.unique(cross_keys(data, items=item_table(), spec=feature_spec()))
        model.set_cross_keys(keys[keys > 0][:32])
    batches = batches_for(model, data)
    seen = seen_targets(model, batches)
    explorer = Explorer.start(model, config=KEEP_ALL).after_training_on(seen)
    got = explorer.scores(seen, members=np.arange(27), hours=_hours(27), width=0.0)
    np.testing.assert_allclose(got, score(model, batches), atol=1e-6)
    drawn = explorer.scores(seen, members=np.arange(27), hours=_hours(27))
    assert np.abs(drawn - got).max() > 0.01
    assert (np.abs(seen.added).max() > 0.01) == (len(parts) > 1)


def test_candidates_are_seen_as_their_events_are() -> None:
    model, data = small_model(), sequences([9, 12, 6])
    batch = one_batch(data)
    with torch.inference_mode():
        context = model.context_cache(batch)
    served = seen_candidates(model, batch, context).numpy()
    expected = seen_targets(model, batches_for(model, data))
    for place, row in enumerate(batch.row.tolist()):
        events = slice(*data.offsets[row : row + 2])
        own = split_seen(served[place, : data.lengths[row]], num_actions=3)
        np.testing.assert_allclose(own.features, expected.features[events], atol=1e-5)
        np.testing.assert_allclose(own.added, expected.added[events], atol=1e-5)


def test_a_member_has_one_draw_an_hour() -> None:
    model = small_model()
    explorer = Explorer.start(model, config=KEEP_ALL)
    row = np.random.default_rng(0).standard_normal((1, 17))
    seen = Seen(features=np.repeat(row, 5, axis=0), added=np.zeros((5, 3)))
    members, hours = ["ann", "bob", "ann", "ann", "bob"], np.array([7, 7, 8, 7, 7])
    got = explorer.scores(seen, members=members, hours=hours)
    assert (got[0] == got[3]).all() and (got[1] == got[4]).all()
    for other in (got[1], got[2]):
        assert np.abs(got[0] - other).min() > 1e-6
    # the same draw whatever else is scored beside it
    alone = explorer.scores(seen.take(slice(1)), members=["ann"], hours=np.array([7]))
    np.testing.assert_allclose(alone, got[:1], rtol=1e-12)


def test_days_one_by_one_equal_all_at_once_without_forgetting() -> None:
    model = small_model()
    seen = seen_targets(model, batches_for(model, sequences([12] * 5)))

    def by_day(config: PosteriorConfig) -> Explorer:
        explorer = Explorer.start(model, config=config)
        for day in np.array_split(np.arange(60), 4):
            explorer = explorer.after_training_on(seen.take(day))
        return explorer

    at_once = Explorer.start(model, config=KEEP_ALL).after_training_on(seen)
    forgetful = by_day(replace(KEEP_ALL, memory=0.5))
    weights = model.get_parameter("head.output.weight").detach().numpy()
    for bit, one in enumerate(at_once.posteriors):
        many, less = by_day(KEEP_ALL).posteriors[bit], forgetful.posteriors[bit]
        np.testing.assert_allclose(many.precision, one.precision, rtol=1e-9)
        np.testing.assert_allclose(many.mean[:-1], weights[bit], atol=1e-9)
        assert np.trace(less.precision) < np.trace(one.precision)
        np.testing.assert_allclose(less.mean, one.mean, atol=1e-9)


def test_draws_reorder_uncertain_candidates_and_leave_certain_ones() -> None:
    # Two weights, both 1 at first, deviation 0.5. Only the first was ever looked at: 10,000 events
    # at logit 1 give it the precision 4 + 10,000 * 0.19661 = 1970.1, a deviation of 0.02253.
    start = Posterior.start(np.array([1.0, 1.0]), config=KEEP_ALL)
    explorer = Explorer(actions=("click",), posteriors=(start,))
    explorer = explorer.after_training_on(_rows(np.tile([1.0, 0.0], (10_000, 1))))
    assert explorer.posteriors[0].precision.diagonal() == pytest.approx([1970.1, 4.0], abs=0.1)
    pairs = {"looked_at": [[0.9, 0.0], [-0.5, 0.0]], "unknown": [[0.0, 0.9], [0.0, -0.5]]}
    flips = dict.fromkeys(pairs, 0)
    for member in range(400):
        for name, pair in pairs.items():
            order = explorer.ranking(_rows(pair), action="click", member=f"m{member}", hour=3)
            flips[name] += int(order[0] == 1)
    # A pair turns round when its weight is drawn below 0: never for a deviation of 0.02, with
    # probability Phi(-2) for 0.5.
    assert flips["looked_at"] == 0
    expected = 400 * norm.cdf(-2)
    assert abs(flips["unknown"] - expected) < 4 * np.sqrt(expected)


def test_what_is_added_tells_how_much_an_event_says() -> None:
    # One weight of 0 with precision 4, one event at feature 2: p (1 - p) is 1/4 at the logit 0,
    # and 1/5 * 4/5 at the logit log 4 that the added part makes of it.
    start = Posterior.start(np.array([0.0]), config=KEEP_ALL)
    explorer = Explorer(actions=("click",), posteriors=(start,))
    for added, precision in ((0.0, 4 + 4 / 4), (np.log(4), 4 + 4 * 4 / 25)):
        seen = Seen(features=np.array([[2.0]]), added=np.array([[added]]))
        assert explorer.after_training_on(seen).posteriors[0].precision.item() == pytest.approx(
            precision
        )
    # a click that the added part has explained moves the mean less
    moved = [
        explorer.after_seeing(
            Seen(features=np.array([[2.0]]), added=np.array([[added]])), np.array([[1]])
        )
        .posteriors[0]
        .mean.item()
        for added in (0.0, 3.0)
    ]
    assert moved[0] > moved[1] > 0


def test_new_events_move_the_means_towards_them() -> None:
    model = small_model()
    seen = seen_targets(model, batches_for(model, sequences([12] * 5)))
    start = Explorer.start(model, config=KEEP_ALL)
    labels = np.stack([np.ones(60), np.zeros(60), np.ones(60)], axis=1).astype(int)
    moved = start.after_seeing(seen, labels)
    before, after = (
        explorer.scores(seen, members=np.arange(60), hours=_hours(60), width=0.0).mean(axis=0)
        for explorer in (start, moved)
    )
    assert (np.sign(after - before) == [1, -1, 1]).all()
    with pytest.raises(ValueError, match="one label for each"):
        start.after_seeing(seen, labels[:, :2])


@pytest.mark.parametrize("parts", [{"head": "mmoe"}, {"calibration": "isotonic_layer"}])
def test_refuses_what_it_would_score_wrongly(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one output layer whose result is added up"):
        Explorer.start(small_model(**parts), config=KEEP_ALL)


def test_refuses_events_without_a_member() -> None:
    explorer = Explorer.start(small_model(), config=KEEP_ALL)
    seen = Seen(features=np.zeros((2, 17)), added=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one member and one hour"):
        explorer.scores(seen, members=["ann"], hours=np.array([1, 1]))
