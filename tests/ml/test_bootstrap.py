"""Bootstrap intervals by user against plain resampling of rows' users."""

import math

import numpy as np
import pytest

from ml.bootstrap import (
    BootstrapConfig,
    auc_interval,
    entropy_difference_interval,
    entropy_interval,
    mean_interval,
    ratio_interval,
)
from ml.metrics import auc, normalized_entropy

USERS, PER_USER = 120, 8


def _rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(USERS), PER_USER) * 7 + 3
    taste = np.repeat(rng.normal(size=USERS), PER_USER)
    true = 1 / (1 + np.exp(-(taste + rng.normal(size=len(users)) * 0.5)))
    return users, (rng.random(len(users)) < true).astype(int), true


def _by_loop(users: np.ndarray, statistic, *, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(users == user) for user in np.unique(users)]
    drawn = []
    for _ in range(draws):
        pick = rng.integers(len(rows_of), size=len(rows_of))
        drawn.append(statistic(np.concatenate([rows_of[user] for user in pick])))
    return np.quantile(drawn, [0.025, 0.975])


def test_entropy_difference_equals_resampling_all_rows_of_a_user() -> None:
    users, labels, true = _rows()
    other = np.clip(true * 0.7 + 0.1, 0, 1)
    config = BootstrapConfig(draws=300)
    got = entropy_difference_interval(users, labels, true, other, config=config)
    expected = _by_loop(
        users,
        lambda r: normalized_entropy(labels[r], true[r]) - normalized_entropy(labels[r], other[r]),
        draws=300,
    )
    assert got.estimate == pytest.approx(
        normalized_entropy(labels, true) - normalized_entropy(labels, other)
    )
    assert (got.low, got.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert got.users == USERS


def test_auc_interval_equals_resampling_all_rows_of_a_user() -> None:
    users, labels, true = _rows()
    scores = np.round(true, 1)
    got = auc_interval(users, labels, scores, config=BootstrapConfig(draws=100))
    expected = _by_loop(users, lambda r: auc(labels[r], scores[r]), draws=100)
    assert got.estimate == pytest.approx(auc(labels, scores))
    assert (got.low, got.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_a_model_against_itself_has_a_difference_of_zero() -> None:
    users, labels, true = _rows()
    got = entropy_difference_interval(users, labels, true, true)
    assert (got.low, got.estimate, got.high) == (0, 0, 0)
    assert not got.excludes_zero


def test_a_clearly_better_model_excludes_zero() -> None:
    users, labels, true = _rows()
    got = entropy_difference_interval(users, labels, true, np.full(len(users), labels.mean()))
    assert got.high < 0
    assert got.excludes_zero


def test_users_make_wider_intervals_than_rows() -> None:
    users, labels, true = _rows()
    wide = mean_interval(users, labels.astype(float))
    narrow = mean_interval(np.arange(len(users)), labels.astype(float))
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    assert (wide.users, narrow.users) == (USERS, USERS * PER_USER)
    entropy = entropy_interval(users, labels, true)
    assert entropy.low < entropy.estimate < entropy.high


def test_a_ratio_weighs_its_rows_and_resamples_users() -> None:
    users = np.array([1, 1, 2])
    got = ratio_interval(users, np.array([2.0, 0, 1]), np.array([2.0, 2, 4]))
    # user 1 has 2 of 4, user 2 has 1 of 4: draws are 1/4, 3/8 and 1/2
    assert (got.estimate, got.low, got.high, got.users) == (0.375, 0.25, 0.5, 2)
    users, labels, _ = _rows()
    unit = ratio_interval(users, labels.astype(float), np.ones(len(users)))
    assert unit == mean_interval(users, labels.astype(float))


def test_coverage_of_a_mean_is_near_the_stated_level() -> None:
    hits = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=400)
        got = mean_interval(np.arange(400), values, config=BootstrapConfig(draws=200, seed=seed))
        hits += got.low <= 0 <= got.high
    assert 88 <= hits <= 99


def test_one_class_gives_nan() -> None:
    users, labels, true = _rows()
    got = auc_interval(users, np.ones_like(labels), true, config=BootstrapConfig(draws=5))
    assert math.isnan(got.estimate)
    assert math.isnan(got.low)
