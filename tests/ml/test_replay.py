"""Replay and inverse propensities: by hand, on planted rates, and in any order of rows."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.special import expit, logit

from ml.analysis.replay import (
    LoggedRequests,
    ReplayRate,
    inverse_propensity_rate,
    replay_rate,
)
from ml.bootstrap import BootstrapConfig
from pipelines.sources.simulation.block import simulate_block
from pipelines.sources.simulation.config import FeedConfig
from tests.ml.sequence_examples import changed, feature_spec, sequences

FEW = BootstrapConfig(draws=200)
SLOTS = 4


def _log(**changes: object) -> LoggedRequests:
    """Five requests of two items; the last of them was not shuffled."""
    log = LoggedRequests(
        user=np.array([1, 1, 1, 1, 2, 2, 2, 2, 3, 3]),
        request=np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 0]),
        position=np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]),
        contributed=np.array([1, 0, 0, 1, 1, 0, 0, 0, 1, 0], bool),
        is_shuffled=np.array([True] * 8 + [False] * 2),
        propensity=np.array([0.5] * 8 + [0.8, 0.8]),
    )
    return replace(log, **changes)  # type: ignore[arg-type]


# The better score stands first in the requests (1, 0), (1, 1), (2, 1) and (3, 0), not in (2, 0).
SCORES = np.array([0.9, 0.1, 0.5, 0.4, 0.2, 0.3, 0.7, 0.6, 0.9, 0.8])


def _planted(
    *, requests: int, shuffled: bool, seed: int = 0
) -> tuple[LoggedRequests, np.ndarray, np.ndarray]:
    """Return a log, each row's planted rate, and the scores of a middling model.

    Without shuffling the best item stands first in 70% of the requests, each other one in 10%.
    """
    rng = np.random.default_rng(seed)
    rate = np.sort(rng.random((requests, SLOTS)), axis=1)[:, ::-1]
    turn = np.where(rng.random(requests) < 0.7, 0, rng.integers(1, SLOTS, requests))
    order = (np.arange(SLOTS) + turn[:, None]) % SLOTS
    propensity = np.where(turn == 0, 0.7, 0.1)
    if shuffled:
        order = np.argsort(rng.random((requests, SLOTS)), axis=1)
        propensity = np.full(requests, 1 / SLOTS)
    rate = np.take_along_axis(rate, order, axis=1)
    scores = rate + 0.4 * rng.standard_normal(rate.shape)
    log = LoggedRequests(
        user=np.repeat(np.arange(requests) // 5, SLOTS),
        request=np.repeat(np.arange(requests) % 5, SLOTS),
        position=np.tile(np.arange(SLOTS), requests),
        contributed=(rng.random(rate.shape) < rate).ravel(),
        is_shuffled=np.full(requests * SLOTS, shuffled),
        propensity=np.repeat(propensity, SLOTS),
    )
    return log, rate, scores


def _true_rate(rate: np.ndarray, scores: np.ndarray) -> float:
    """Return what a model earns that shows its best item first, of the planted rates."""
    return float(np.take_along_axis(rate, scores.argmax(axis=1)[:, None], axis=1).mean())


def test_counts_matches_of_shuffled_requests_by_hand() -> None:
    got = replay_rate(_log(), SCORES, config=FEW)
    # matches (1, 0) engaged, (1, 1) not, (2, 1) not
    assert (got.matches, got.requests, got.incomplete) == (3.0, 4, 0)
    assert got.match_ratio == 1.5  # of two items one is expected to match in two of four
    assert got.rate.estimate == pytest.approx(1 / 3)
    assert got.rate.users == 2
    # users earn 1 of 2 and 0 of 1: no draw lies outside 0 and 1/2
    assert (got.rate.low, got.rate.high) == (0.0, 0.5)


def test_weighs_matches_by_inverse_propensity_by_hand() -> None:
    got = inverse_propensity_rate(_log(), SCORES, config=FEW)
    # weights 2, 2, 2 and 1.25; earned 2 and 1.25
    assert (got.matches, got.requests) == (4.0, 5)
    assert got.rate.estimate == pytest.approx(3.25 / 7.25)
    assert got.effective_matches == pytest.approx(7.25**2 / (12 + 1.25**2))
    clipped = inverse_propensity_rate(_log(), SCORES, largest_weight=1.5, config=FEW)
    assert clipped.rate.estimate == pytest.approx((1.5 + 1.25) / (3 * 1.5 + 1.25))


def test_ties_share_a_match_whatever_the_order_of_rows() -> None:
    got = replay_rate(_log(), np.zeros(10), config=FEW)
    # a constant model matches half of each request; first rows earned 1, 0, 1, 0
    assert got.matches == 2.0 and got.rate.estimate == pytest.approx(0.5)


def test_a_request_without_its_first_row_is_left_out_and_counted() -> None:
    keep = np.arange(10) != 2
    log = _log()
    cut = LoggedRequests(**{f.name: getattr(log, f.name)[keep] for f in fields(log)})
    got = replay_rate(cut, SCORES[keep], config=FEW)
    assert (got.matches, got.requests, got.incomplete) == (2.0, 3, 1)
    assert got.rate.estimate == pytest.approx(1 / 2)
    assert inverse_propensity_rate(cut, SCORES[keep], config=FEW).incomplete == 1


def test_an_order_of_rows_decides_nothing() -> None:
    log, _, scores = _planted(requests=300, shuffled=True)
    mixed = np.random.default_rng(1).permutation(len(log.user))
    other = LoggedRequests(**{f.name: getattr(log, f.name)[mixed] for f in fields(log)})
    for estimate in (replay_rate, inverse_propensity_rate):
        here = estimate(log, scores.ravel(), config=FEW)
        there = estimate(other, scores.ravel()[mixed], config=FEW)
        assert here.rate.estimate == pytest.approx(there.rate.estimate, rel=1e-12)
        assert (here.rate.low, here.rate.high) == pytest.approx((there.rate.low, there.rate.high))
        assert here.matches == there.matches


def test_an_oracle_earns_more_than_chance_and_both_what_was_planted() -> None:
    log, rate, middling = _planted(requests=8000, shuffled=True)
    chance = np.random.default_rng(2).random(rate.shape)
    rates = []
    for scores in (rate, middling, chance):
        got = replay_rate(log, scores.ravel(), config=FEW)
        assert got.rate.low < _true_rate(rate, scores) < got.rate.high
        assert got.matches == pytest.approx(8000 / SLOTS, rel=0.1)
        rates.append(got.rate)
    oracle, middle, random = rates
    # the best of four uniform rates is 4/5 on average, any of them 1/2
    assert oracle.estimate == pytest.approx(0.8, abs=0.03)
    assert random.estimate == pytest.approx(0.5, abs=0.03)
    assert oracle.low > middle.high and middle.low > random.high


def test_inverse_propensities_undo_the_old_policy() -> None:
    log, rate, scores = _planted(requests=20_000, shuffled=False)
    truth = _true_rate(rate, scores)
    flat = scores.ravel()
    weighed = inverse_propensity_rate(log, flat, config=FEW)
    assert weighed.rate.low < truth < weighed.rate.high
    clipped = inverse_propensity_rate(log, flat, largest_weight=1.0, config=FEW)
    assert clipped.rate.low > truth + 0.03  # every match alike: the old policy's favourites
    assert weighed.effective_matches < weighed.matches
    assert weighed.match_ratio == pytest.approx(1, abs=0.05)


def test_refuses_a_log_that_only_says_it_was_shuffled() -> None:
    log, _, scores = _planted(requests=400, shuffled=False)
    with pytest.raises(ValueError, match="as often as chance has it"):
        replay_rate(replace(log, is_shuffled=np.ones(1600, bool)), scores.ravel(), config=FEW)
    with pytest.raises(ValueError, match="as often as chance has it"):
        inverse_propensity_rate(replace(log, propensity=np.ones(1600)), scores.ravel(), config=FEW)


@pytest.mark.parametrize("estimate", [replay_rate, inverse_propensity_rate])
def test_refuses_scores_that_know_the_position(estimate: Callable[..., ReplayRate]) -> None:
    log, _, scores = _planted(requests=400, shuffled=True)
    assert abs(estimate(log, scores.ravel(), config=FEW).match_ratio - 1) < 0.3
    with pytest.raises(ValueError, match="score all candidates at one position"):
        estimate(log, scores.ravel() - 0.3 * log.position, config=FEW)


def test_on_shuffled_requests_both_estimates_agree() -> None:
    log, _, scores = _planted(requests=500, shuffled=True)
    replayed = replay_rate(log, scores.ravel(), config=FEW)
    weighed = inverse_propensity_rate(log, scores.ravel(), config=FEW)
    assert replayed.rate.estimate == pytest.approx(weighed.rate.estimate, rel=1e-12)
    assert weighed.effective_matches == pytest.approx(weighed.matches)


def test_both_find_what_the_simulated_feed_has_planted() -> None:
    config = FeedConfig.from_options({"users": "256", "days": "30"})
    feed = simulate_block(config, 0)
    log = LoggedRequests(
        user=feed["user"],
        request=feed["request"],
        position=feed["position"],
        contributed=feed["clicked"],
        is_shuffled=feed["is_shuffled"],
        propensity=feed["propensity"],
    )
    logged = feed["true_probability"]
    # what the click's probability would be at the first position
    first = expit(logit(logged) + config.position_scale * feed["position"])
    by_request = np.lexsort((-first, feed["request"], feed["user"]))
    best = first[by_request[:: config.slots]].mean()
    for estimate in (replay_rate, inverse_propensity_rate):
        got = estimate(log, first, config=FEW)
        assert got.rate.low < best < got.rate.high
        constant = estimate(log, np.zeros(len(first)), config=FEW)
        assert constant.rate.low < first.mean() < constant.rate.high
        assert got.rate.low > constant.rate.high
        with pytest.raises(ValueError, match="score all candidates at one position"):
            estimate(log, logged, config=FEW)


def test_takes_target_events_of_sequences() -> None:
    data = sequences([4, 6], request_size=2)
    # actions are bits of click, like, share; positions count from 1, 0 is unknown
    data = changed(
        data,
        position=np.array([1, 2, 2, 1, 1, 2, 2, 1, 0, 0], np.int32),
        actions=np.array([1, 2, 4, 0, 3, 0, 1, 5, 7, 7], np.int32),
        is_shuffled=np.array([True] * 8 + [False] * 2),
        is_target=np.array([False, False] + [True] * 8),
    )
    log = LoggedRequests.of_targets(data, spec=feature_spec(), contributions=("like", "share"))
    assert log.position.tolist() == [1, 0, 0, 1, 1, 0, -1, -1]
    assert log.contributed.tolist() == [True, False, True, False, False, True, True, True]
    assert log.user.tolist() == [1, 1, 2, 2, 2, 2, 2, 2]
    got = replay_rate(log, np.array([0.1, 0.9, 0.8, 0.2, 0.3, 0.7, 0.5, 0.5]), config=FEW)
    # all three shuffled requests match; their first rows were nothing, liked, shared
    assert (got.matches, got.requests, got.rate.estimate) == (3.0, 3, pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="there is no action 'comment'"):
        LoggedRequests.of_targets(data, spec=feature_spec(), contributions=("comment",))


def test_nothing_matched_is_not_a_number() -> None:
    got = replay_rate(_log(), -SCORES * np.array([1, 1, 1, 1, -1, -1, 1, 1, 1, 1]), config=FEW)
    assert np.isnan(got.rate.estimate) and got.matches == 0


@pytest.mark.parametrize("mark", [None, np.zeros(10, bool), np.tile([True, False], 5)])
def test_refuses_logs_without_a_wholly_shuffled_request(mark: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="no request whose order was shuffled uniformly"):
        replay_rate(_log(is_shuffled=mark), SCORES)


def test_refuses_logs_and_scores_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="no propensity within"):
        inverse_propensity_rate(_log(propensity=None), SCORES)
    with pytest.raises(ValueError, match="no propensity within"):
        inverse_propensity_rate(_log(propensity=np.array([0.0] + [0.5] * 9)), SCORES)
    with pytest.raises(ValueError, match="two rows of a request stand first"):
        _log(position=np.zeros(10, np.int64))
    with pytest.raises(ValueError, match="no shuffled request of this log has a row at position 0"):
        replay_rate(_log(position=np.full(10, -1)), SCORES)
    with pytest.raises(ValueError, match="no row at position 0"):
        inverse_propensity_rate(_log(position=np.full(10, -1)), SCORES)
    with pytest.raises(ValueError, match="equally long"):
        _log(position=np.zeros(9, np.int64))
    with pytest.raises(ValueError, match="to each of the 10 rows"):
        replay_rate(_log(), SCORES[:9])
    with pytest.raises(ValueError, match="clip at more than"):
        inverse_propensity_rate(_log(), SCORES, largest_weight=0.5)
