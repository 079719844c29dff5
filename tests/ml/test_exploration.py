"""Exploring with a ranker: means are the model, one draw per member and hour, doubt reorders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ml.ranking.bayesian_last_layer import Posterior, PosteriorConfig
from ml.ranking.sequence_ranker.exploration import Explorer, candidate_features, target_features
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for
from tests.ml.sequence_examples import one_batch, sequences, small_model

KEEP_ALL = PosteriorConfig(prior_deviation=0.5, memory=1.0)


def _hours(count: int) -> np.ndarray:
    return np.full(count, 480_000)


@pytest.mark.parametrize("head", ["mlp", "linear", "parallel_dcn"])
def test_without_width_the_scores_are_the_models(head: str) -> None:
    model = small_model(head=head)
    batches = batches_for(model, sequences([9, 12, 6]))
    features = target_features(model, batches)
    explorer = Explorer.start(model, config=KEEP_ALL).after_training_on(features)
    got = explorer.scores(features, members=np.arange(27), hours=_hours(27), width=0.0)
    np.testing.assert_allclose(got, score(model, batches), atol=1e-6)
    drawn = explorer.scores(features, members=np.arange(27), hours=_hours(27))
    assert np.abs(drawn - got).max() > 0.01


def test_candidates_are_seen_as_their_events_are() -> None:
    model = small_model()
    data = sequences([9, 12, 6])
    batch = one_batch(data)
    with torch.inference_mode():
        context = model.context_cache(batch)
    served = candidate_features(model, batch, context)
    placed = np.zeros((3, 12, served.shape[-1]))
    for place, row in enumerate(batch.row.tolist()):
        placed[place, : data.lengths[row]] = target_features(model, batches_for(model, data))[
            data.offsets[row] : data.offsets[row + 1]
        ]
    mask = batch.target.numpy()
    np.testing.assert_allclose(served[mask], placed[mask], atol=1e-5)
    assert (served[..., -1] == 1).all()


def test_a_member_has_one_draw_an_hour() -> None:
    model = small_model()
    explorer = Explorer.start(model, config=KEEP_ALL)
    row = np.random.default_rng(0).standard_normal((1, 17))
    features = np.repeat(row, 5, axis=0)
    members, hours = ["ann", "bob", "ann", "ann", "bob"], np.array([7, 7, 8, 7, 7])
    got = explorer.scores(features, members=members, hours=hours)
    assert (got[0] == got[3]).all() and (got[1] == got[4]).all()
    for other in (got[1], got[2]):
        assert np.abs(got[0] - other).min() > 1e-6
    # the same draw whatever else is scored beside it
    alone = explorer.scores(row, members=["ann"], hours=np.array([7]))
    np.testing.assert_allclose(alone, got[:1], rtol=1e-12)


def test_days_one_by_one_equal_all_at_once_without_forgetting() -> None:
    model = small_model()
    features = target_features(model, batches_for(model, sequences([12] * 5)))
    start = Explorer.start(model, config=KEEP_ALL)
    at_once, by_day = start.after_training_on(features), start
    for day in np.array_split(np.arange(60), 4):
        by_day = by_day.after_training_on(features[day])
    weights = model.get_parameter("head.output.weight").detach().numpy()
    for one, many, row in zip(at_once.posteriors, by_day.posteriors, weights, strict=True):
        np.testing.assert_allclose(many.precision, one.precision, rtol=1e-9)
        np.testing.assert_allclose(many.mean[:-1], row, atol=1e-9)
    forgetful = Explorer.start(model, config=replace(KEEP_ALL, memory=0.5))
    for day in np.array_split(np.arange(60), 4):
        forgetful = forgetful.after_training_on(features[day])
    for one, less in zip(at_once.posteriors, forgetful.posteriors, strict=True):
        assert np.trace(less.precision) < np.trace(one.precision)
        np.testing.assert_allclose(less.mean, one.mean, atol=1e-9)


def test_draws_reorder_uncertain_candidates_and_leave_certain_ones() -> None:
    # Two weights, both 1 at first, deviation 0.5. Only the first was ever looked at: 10,000 events
    # at logit 1 give it the precision 4 + 10,000 * 0.19661 = 1970.1, a deviation of 0.02253.
    start = Posterior.start(np.array([1.0, 1.0]), config=KEEP_ALL)
    explorer = Explorer(actions=("click",), posteriors=(start,))
    explorer = explorer.after_training_on(np.tile([1.0, 0.0], (10_000, 1)))
    looked_at, unknown = np.array([[0.9, 0.0], [-0.5, 0.0]]), np.array([[0.0, 0.9], [0.0, -0.5]])
    flips = {"looked_at": 0, "unknown": 0}
    for member in range(400):
        for name, pair in {"looked_at": looked_at, "unknown": unknown}.items():
            order = explorer.ranking(pair, action="click", member=f"m{member}", hour=3)
            flips[name] += int(order[0] == 1)
    # A pair turns round when its weight is drawn below 0: never for a deviation of 0.02, with
    # probability Phi(-2) for 0.5.
    assert flips["looked_at"] == 0
    expected = 400 * norm.cdf(-2)
    assert abs(flips["unknown"] - expected) < 4 * np.sqrt(expected)


def test_new_events_move_the_means_towards_them() -> None:
    model = small_model()
    features = target_features(model, batches_for(model, sequences([12] * 5)))
    start = Explorer.start(model, config=KEEP_ALL)
    labels = np.stack([np.ones(60), np.zeros(60), np.ones(60)], axis=1).astype(int)
    moved = start.after_seeing(features, labels)
    before, after = (
        explorer.scores(features, members=np.arange(60), hours=_hours(60), width=0.0).mean(axis=0)
        for explorer in (start, moved)
    )
    assert (np.sign(after - before) == [1, -1, 1]).all()
    with pytest.raises(ValueError, match="one label for each"):
        start.after_seeing(features, labels[:, :2])


@pytest.mark.parametrize(
    "parts",
    [
        {"head": "mmoe"},
        {"position_offsets": True},
        {"wide_crosses": 8},
        {"calibration": "isotonic_layer"},
    ],
)
def test_refuses_what_it_would_score_wrongly(parts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="one output layer whose result is the logits"):
        Explorer.start(small_model(**parts), config=KEEP_ALL)


def test_refuses_events_without_a_member() -> None:
    explorer = Explorer.start(small_model(), config=KEEP_ALL)
    with pytest.raises(ValueError, match="one member and one hour"):
        explorer.scores(np.zeros((2, 17)), members=["ann"], hours=np.array([1, 1]))
