"""The arithmetic of HDET: spread, evidence, weights and the learning-rate update."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ml.training.hdet.config import HdetConfig
from ml.training.hdet.controller import (
    Evidence,
    permutation,
    probe_evidence,
    push_of,
    spread,
    steer,
    weights,
    window_evidence,
)

AUTO = HdetConfig()
SYNCS = 60


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [1.0]),
        (2, [0.9, 1.1]),
        (3, [0.9, 1.0, 1.1]),
        (5, [0.9, 0.95, 1.0, 1.05, 1.1]),
    ],
)
def test_spread_is_symmetric_about_one(size: int, expected: list[float]) -> None:
    factors = spread(size, fraction=0.1)
    torch.testing.assert_close(factors, torch.tensor(expected, dtype=torch.float64))
    assert float(factors.sum()) == pytest.approx(size)


def test_permutations_are_private_and_differ_across_groups_and_syncs() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state(legacy=False)
    drawn = {(s, g): permutation(8, seed=1, sync=s, group=g) for s in range(3) for g in range(3)}
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert str(np.random.get_state(legacy=False)) == str(before[1])
    assert all(sorted(places) == list(range(8)) for places in drawn.values())
    assert len({tuple(places) for places in drawn.values()}) == len(drawn)
    assert permutation(8, seed=1, sync=2, group=0) == drawn[2, 0]


def test_two_replicas_variance_ratio_is_the_squared_paired_t_statistic() -> None:
    losses = torch.tensor([[0.30, 0.50, 0.20, 0.90], [0.35, 0.52, 0.20, 0.99]])
    difference = (losses[1] - losses[0]).double().numpy()
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(4))
    assert probe_evidence(losses).variance_ratio == pytest.approx(t**2, rel=1e-5)


def test_window_noise_is_the_standard_error_of_a_mean() -> None:
    steps = np.array([[1.0, 2.0, 3.0, 6.0], [2.0, 2.0, 4.0, 4.0]])
    sums = torch.tensor(np.stack([steps.sum(1), (steps**2).sum(1), [4.0, 4.0]], axis=1))
    evidence = window_evidence(sums)
    assert evidence.losses.tolist() == [3.0, 3.0]
    assert evidence.noise**2 == pytest.approx(steps.var(axis=1, ddof=1).mean() / 4)


def _push(evidence: Evidence, factors: Tensor, config: HdetConfig) -> float:
    return push_of(factors, weights(evidence, config=config))


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("sigma", [None, 0.1])
def test_push_is_upwards_exactly_when_better_replicas_are_faster(
    size: int, sigma: float | None
) -> None:
    config = HdetConfig(sigma=sigma)
    factors = spread(size, fraction=0.1)
    for best in range(size):
        losses = torch.ones(size, dtype=torch.float64)
        losses[best] = 0.5
        push = _push(Evidence(losses=losses, noise=1e-3), factors, config)
        distance = float(factors[best]) - 1
        assert (push > 1e-6) == (distance > 1e-9)
        assert (push < -1e-6) == (distance < -1e-9)


@pytest.mark.parametrize("update", ["multiplicative", "additive"])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_noise_alone_moves_the_learning_rate_by_less_than_five_percent(
    size: int, update: str
) -> None:
    config = HdetConfig(update=update)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        multiplier, velocity = 1.0, 0.0
        for sync in range(SYNCS):
            losses = torch.from_numpy(0.4 + rng.normal(size=(size, 200)) * 0.05)
            places = permutation(size, seed=seed, sync=sync, group=0)
            push = _push(probe_evidence(losses), spread(size, fraction=1 / 9)[places], config)
            multiplier, velocity = steer(multiplier, velocity, push, envelope=1e-3, config=config)
            assert abs(math.log(multiplier)) < 0.05


@pytest.mark.parametrize("size", [4, 8])
def test_noise_in_training_windows_moves_the_learning_rate_by_less_than_five_percent(
    size: int,
) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        multiplier, velocity = 1.0, 0.0
        for sync in range(SYNCS):
            steps = 0.4 + rng.normal(size=(size, 50)) * 0.05
            sums = [steps.sum(1), (steps**2).sum(1), np.full(size, 50.0)]
            evidence = window_evidence(torch.from_numpy(np.stack(sums, axis=1)))
            places = permutation(size, seed=seed, sync=sync, group=0)
            push = _push(evidence, spread(size, fraction=1 / 9)[places], AUTO)
            multiplier, velocity = steer(multiplier, velocity, push, envelope=1e-3, config=AUTO)
            assert abs(math.log(multiplier)) < 0.05


@pytest.mark.parametrize("update", ["multiplicative", "additive"])
def test_a_steady_advantage_changes_the_rate_by_the_published_reach(update: str) -> None:
    """A fully convinced controller moves by lambda x alpha per sync: factor 8 in 38 syncs."""
    config = HdetConfig(update=update, max_multiplier=100.0, momentum_fraction=0.0)
    multiplier, velocity = 1.0, 0.0
    for _ in range(38):
        multiplier, velocity = steer(multiplier, velocity, 1 / 9, envelope=1e-3, config=config)
    assert multiplier == pytest.approx(8, rel=0.06)


@pytest.mark.parametrize("update", ["multiplicative", "additive"])
def test_the_learning_rate_stays_positive_and_clamped_under_the_worst_push(update: str) -> None:
    config = HdetConfig(update=update, gain=50.0, min_multiplier=0.2, max_multiplier=5.0)
    multiplier, velocity = 1.0, 0.0
    for push in [1 / 9] * 10 + [-1 / 9] * 100:
        multiplier, velocity = steer(multiplier, velocity, push, envelope=1e-3, config=config)
        assert 0.2 <= multiplier <= 5.0
    assert multiplier == 0.2


def test_without_gamma_and_push_nothing_decays_or_grows() -> None:
    assert steer(1.0, 0.0, 0.0, envelope=1e-3, config=AUTO) == (1.0, 0.0)


def test_a_positive_gamma_lowers_the_rate() -> None:
    config = HdetConfig(decay_fraction=0.1)
    assert steer(1.0, 0.0, 0.0, envelope=1e-3, config=config)[0] == pytest.approx(0.9)


def test_published_sigma_weights() -> None:
    evidence = Evidence(losses=torch.tensor([1.0, 1.1], dtype=torch.float64), noise=0.0)
    got = weights(evidence, config=HdetConfig(sigma=0.1))
    expected = math.e / (1 + math.e)
    assert got.tolist() == pytest.approx([expected, 1 - expected])


@pytest.mark.parametrize(
    "wrong",
    [
        {"spread_fraction": 1.0},
        {"sync_steps": 0},
        {"gradient_sync": "never"},
        {"update": "sideways"},
        {"min_multiplier": 2.0},
        {"sigma": 0.0},
        {"moments": "kept"},
        {"diverse": ("dropout", "dropout")},
        {"starts": (("dropout", 0.1),)},
        {"divergence_factor": 1.0},
    ],
)
def test_refuses_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[-1]):
        HdetConfig(**wrong)
