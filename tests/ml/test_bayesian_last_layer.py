"""The posterior against ridge and logistic regression; draws against their covariance; regret."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from ml.ranking.bayesian_last_layer import Posterior, PosteriorConfig, session_generator
from tests.benchmarks.bandit import regrets

WIDTH = 5
KEEP_ALL = PosteriorConfig(prior_deviation=0.8, noise_deviation=0.5, memory=1.0)


def _rows(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, WIDTH))
    rewards = features @ np.arange(1.0, WIDTH + 1) + 0.5 * rng.standard_normal(count)
    return features, rewards


def test_one_weight_by_hand() -> None:
    config = PosteriorConfig(prior_deviation=2.0, noise_deviation=1.0, memory=0.5)
    posterior = Posterior.start(np.array([3.0]), config=config)
    assert (posterior.precision.item(), posterior.shift.item()) == (0.25, 0.75)
    once = posterior.update(np.array([[2.0]]), np.array([5.0]))
    # what is forgotten is the prior itself, so A = 0.25 + 4, b = 0.75 + 10
    assert (once.precision.item(), once.shift.item()) == (4.25, 10.75)
    twice = once.update(np.zeros((0, 1)), np.zeros(0))
    # half of the evidence is gone: A = 2.125 + 0.125, b = 5.375 + 0.375
    assert (twice.precision.item(), twice.shift.item()) == (2.25, 5.75)


def test_mean_is_the_ridge_solution_around_the_trained_weights() -> None:
    features, rewards = _rows(60)
    start = np.array([0.5, -1.0, 2.0, 0.0, 1.0])
    posterior = Posterior.start(start, config=KEEP_ALL).update(features, rewards)
    ridge = Ridge(alpha=0.5**2 / 0.8**2, fit_intercept=False, solver="cholesky")
    ridge.fit(features, rewards - features @ start)
    np.testing.assert_allclose(posterior.mean, start + ridge.coef_, rtol=1e-10)


def test_many_updates_equal_one_without_forgetting() -> None:
    features, rewards = _rows(60)
    start = Posterior.start(np.ones(WIDTH), config=KEEP_ALL)
    at_once = start.update(features, rewards)
    bit_by_bit = start
    for part in np.array_split(np.arange(60), 7):
        bit_by_bit = bit_by_bit.update(features[part], rewards[part])
    np.testing.assert_allclose(bit_by_bit.precision, at_once.precision, rtol=1e-12)
    np.testing.assert_allclose(bit_by_bit.mean, at_once.mean, rtol=1e-10)


def test_forgetting_follows_a_world_that_changed_and_returns_to_the_start() -> None:
    config = PosteriorConfig(noise_deviation=0.5, memory=0.7)
    posterior = Posterior.start(np.zeros(WIDTH), config=config)
    features, rewards = _rows(500)
    posterior = posterior.update(features, rewards)
    stubborn = Posterior.start(np.zeros(WIDTH), config=KEEP_ALL).update(features, rewards)
    for seed in range(1, 13):
        features, rewards = _rows(50, seed=seed)
        posterior = posterior.update(features, -rewards)
        stubborn = stubborn.update(features, -rewards)
    truth = -np.arange(1.0, WIDTH + 1)
    assert np.abs(posterior.mean - truth).max() < 0.6
    assert np.abs(stubborn.mean - truth).max() > 2
    for _ in range(80):
        posterior = posterior.update(np.zeros((0, WIDTH)), np.zeros(0))
    np.testing.assert_allclose(posterior.mean, np.zeros(WIDTH), atol=1e-6)
    np.testing.assert_allclose(posterior.precision, np.eye(WIDTH), atol=1e-6)


def test_binary_mean_is_the_penalised_logistic_regression() -> None:
    features, rewards = _rows(400)
    labels = (rewards > 0.5).astype(np.int64)
    posterior = Posterior.start(np.zeros(WIDTH), config=KEEP_ALL).update_binary(features, labels)
    logistic = LogisticRegression(C=0.8**2, fit_intercept=False, tol=1e-10, max_iter=1000)
    logistic.fit(features, labels)
    np.testing.assert_allclose(posterior.mean, logistic.coef_[0], rtol=1e-5)
    rate = logistic.predict_proba(features)[:, 1]
    curvature = np.eye(WIDTH) / 0.8**2
    for row, p in zip(features, rate, strict=True):
        curvature += p * (1 - p) * np.outer(row, row)
    np.testing.assert_allclose(posterior.precision, curvature, rtol=1e-5)


def test_binary_update_settles_on_separable_rows_and_far_starts() -> None:
    features = np.array([[1e3, 1.0], [-1e3, 1.0]] * 20)
    far = Posterior.start(np.array([-5.0, 30.0]), config=KEEP_ALL)
    posterior = far.update_binary(features, np.array([1, 0] * 20))
    assert np.isfinite(posterior.mean).all() and posterior.mean[0] > 0
    slope = features.T @ (np.array([1, 0] * 20) - 1 / (1 + np.exp(-features @ posterior.mean)))
    slope -= (posterior.mean - [-5.0, 30.0]) / 0.8**2
    assert np.abs(slope).max() < 1e-4


def test_draws_have_the_posterior_mean_and_covariance() -> None:
    features, rewards = _rows(12)
    posterior = Posterior.start(np.zeros(WIDTH), config=KEEP_ALL).update(features, rewards)
    sampler = posterior.sampler()
    draws = sampler.draw(np.random.default_rng(0), draws=200_000)
    covariance = np.linalg.inv(posterior.precision)
    np.testing.assert_allclose(draws.mean(axis=0), posterior.mean, atol=0.003)
    assert np.abs(np.cov(draws.T) - covariance).max() < 0.02 * covariance.max()
    wide = sampler.draw(np.random.default_rng(0), draws=200_000, width=2.0)
    assert np.abs(np.cov(wide.T) - 4 * covariance).max() < 0.08 * covariance.max()
    still = sampler.draw(np.random.default_rng(0), width=0.0)[0]
    np.testing.assert_array_equal(still, posterior.mean)


def test_a_member_sees_one_draw_per_hour() -> None:
    posterior = Posterior.start(np.zeros(WIDTH), config=KEEP_ALL)

    def drawn(member: str, hour: int) -> list[float]:
        return posterior.sampler().draw(session_generator(member, hour=hour))[0].tolist()

    assert drawn("7", 482_000) == drawn("7", 482_000)
    assert drawn("7", 482_000) != drawn("7", 482_001)
    assert drawn("7", 482_000) != drawn("8", 482_000)
    # the same in every process: the seed is what `printf 482000:7 | b2sum -l 128` prints
    seed = int.from_bytes(bytes.fromhex("1951075f972ca5623e0cffb698499d8d"), "little")
    expected = np.random.default_rng(seed).random(3)
    assert session_generator("7", hour=482_000).random(3).tolist() == expected.tolist()


def test_save_and_load_give_the_same_draws(tmp_path: Path) -> None:
    posterior = Posterior.start(np.ones(WIDTH), config=KEEP_ALL).update(*_rows(9))
    posterior.save(tmp_path / "posterior.safetensors")
    again = Posterior.load(tmp_path / "posterior.safetensors")
    assert again.config == KEEP_ALL
    draws = [p.sampler().draw(np.random.default_rng(3)).tolist() for p in (posterior, again)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize(("is_binary", "seeds", "rounds"), [(False, 10, 300), (True, 10, 500)])
def test_exploring_regrets_less_than_greed(is_binary: bool, seeds: int, rounds: int) -> None:
    table = regrets(seeds=seeds, rounds=rounds, is_binary=is_binary)
    thompson, greedy = table.mean(axis=0)
    assert thompson < greedy


def test_refuses_bad_rows_and_settings() -> None:
    posterior = Posterior.start(np.zeros(2), config=KEEP_ALL)
    with pytest.raises(ValueError, match="one row of features per target"):
        posterior.update(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="must be finite"):
        posterior.update(np.array([[np.nan, 0.0]]), np.zeros(1))
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        posterior.update_binary(np.zeros((1, 2)), np.array([2]))
    with pytest.raises(ValueError, match="finite vector"):
        Posterior.start(np.zeros((2, 2)), config=KEEP_ALL)
    with pytest.raises(ValueError, match="memory within"):
        PosteriorConfig(memory=1.5)
