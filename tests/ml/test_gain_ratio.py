"""The gain's estimator: its limits, its bias, its averages and its floor.

Expected values are worked out by hand from the definition of the statistics.
"""

import itertools
import json
import math

import pytest
import torch

from ml.training.gain_ratio import AdaScaleConfig, GainRatio, base_batch_moments

EXACT = AdaScaleConfig(variance_floor_fraction=0.0)


def _norms(variance: float, square_mean: float, count: int) -> tuple[float, float, int]:
    """Return what a step of these statistics shows on average: E sum ||g||^2, E ||mean||^2, S."""
    return count * (variance + square_mean), square_mean + variance / count, count


def _gain(variance: float, square_mean: float, count: int) -> float:
    """Return the gain of the second of two equal steps; the first is always 1."""
    ratio = GainRatio()
    assert ratio.update(*_norms(variance, square_mean, count)) == 1.0
    return ratio.update(*_norms(variance, square_mean, count))


def test_without_noise_the_gain_is_one() -> None:
    assert _gain(0.0, 3.0, 8) == pytest.approx(1.0, abs=2e-6)


def test_with_noise_only_the_gain_is_the_scale() -> None:
    assert _gain(3.0, 0.0, 8) == pytest.approx(8.0)


def test_gain_between_the_limits_is_the_formula() -> None:
    """sigma^2 = 6, mu^2 = 2, S = 3: (6 + 2) / (6 / 3 + 2) = 2."""
    assert _gain(6.0, 2.0, 3) == pytest.approx(2.0)


def test_gain_grows_with_the_noise_and_with_the_scale() -> None:
    by_noise = [_gain(variance, 1.0, 8) for variance in (0.1, 0.5, 1.0, 4.0, 50.0)]
    by_scale = [_gain(2.0, 1.0, count) for count in (1, 2, 3, 4, 8, 64)]
    assert all(a + 0.01 < b for a, b in itertools.pairwise(by_noise))
    assert all(a + 0.01 < b for a, b in itertools.pairwise(by_scale))


@pytest.mark.parametrize("size", [1e-8, 1e-30, 1e-200])
def test_small_gradients_are_not_taken_for_noise(size: float) -> None:
    """(1 + 1) / (1/8 + 1) = 1.78; an absolute floor of 1e-6 would give 7.48 at 1e-8."""
    assert _gain(size, size, 8) == pytest.approx(16 / 9)


def test_zero_gradients_have_gain_one() -> None:
    assert _gain(0.0, 0.0, 8) == 1.0


def test_a_single_batch_has_gain_exactly_one_and_changes_nothing() -> None:
    ratio = GainRatio()
    for _ in range(3):
        ratio.update(*_norms(6.0, 2.0, 3))
    before = ratio.state_dict()
    assert ratio.update(5.0, 5.0, 1) == 1.0
    assert ratio.update(0.0, 0.0, 1) == 1.0
    assert ratio.state_dict() == before


def test_gain_stays_between_one_and_the_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (2, 3, 16, 2000):
        ratio = GainRatio()
        for step in range(50):
            gradients = torch.randn(count, 2, generator=generator, dtype=torch.float64)
            gradients = gradients * 10.0 ** (step % 7 - 3) + step % 3
            sum_of_squares = float(gradients.square().sum())
            gain = ratio.update(sum_of_squares, float(gradients.mean(0).square().sum()), count)
            assert 1.0 <= gain <= count


@pytest.mark.parametrize("count", [2, 5])
def test_moments_are_unbiased(count: int) -> None:
    """Monte Carlo: the mean over 20000 steps is within four of its own standard errors.

    The gradients are (1, -2, 0.5) plus noise of standard deviations 1, 2 and 3, so
    mu^2 = 5.25 and sigma^2 = 14.
    """
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(20_000, count, 3, generator=generator, dtype=torch.float64)
    gradients = torch.tensor([1.0, -2.0, 0.5]) + noise * torch.tensor([1.0, 2.0, 3.0])
    sums = gradients.square().sum((1, 2)).tolist()
    means = gradients.mean(1).square().sum(1).tolist()
    estimates = torch.tensor(
        [base_batch_moments(s, m, count) for s, m in zip(sums, means, strict=True)],
        dtype=torch.float64,
    )
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert (4 * error < torch.tensor([0.6, 0.4])).all(), "too few draws to tell a bias"
    assert ((estimates.mean(0) - torch.tensor([14.0, 5.25])).abs() < 4 * error).all()


def test_gain_is_the_ratio_of_the_averages() -> None:
    """Averages of (6, 2) and (0, 6) are (3, 4): (3 + 4) / (3 / 3 + 4) = 1.4.

    The average of the two gains, 2 and 1, would be 1.5.
    """
    ratio = GainRatio(EXACT)
    ratio.update(*_norms(6.0, 2.0, 3))
    assert ratio.update(*_norms(0.0, 6.0, 3)) == pytest.approx(1.4)


def test_averages_run_plainly_until_the_memory_is_full_and_decay_then() -> None:
    """With S = 2 and a memory of 6, theta = 2/3 and 1 / (1 - theta) = 3 steps.

    sigma^2 of 9, 0, 0 averages 9, 4.5, 3; after that two thirds stay: 2, then
    2/3 x 2 + 1/3 x 3 = 7/3.
    """
    ratio = GainRatio(AdaScaleConfig(memory_batches=6, variance_floor_fraction=0.0))
    seen = []
    for variance in (9.0, 0.0, 0.0, 0.0, 3.0):
        ratio.update(*_norms(variance, 1.0, 2))
        seen.append(ratio.variance)
    assert seen == pytest.approx([9.0, 4.5, 3.0, 2.0, 7 / 3])
    assert ratio.square_mean == pytest.approx(1.0)


def test_at_a_scale_above_the_memory_only_the_last_step_counts() -> None:
    ratio = GainRatio(AdaScaleConfig(memory_batches=4))
    ratio.update(*_norms(50.0, 1.0, 8))
    assert ratio.update(*_norms(8.0, 2.0, 8)) == pytest.approx(10 / 3)


def test_a_negative_estimate_counts_as_its_floor() -> None:
    """Mean square 1 and squared mean 1.1 (slightly unequal batches): sigma^2 = -0.2, mu^2 = 1.2."""
    assert base_batch_moments(2.0, 1.1, 2) == pytest.approx((-0.2, 1.2))
    ratio = GainRatio()
    ratio.update(2.0, 1.1, 2)
    assert ratio.variance == pytest.approx(1e-6)
    assert ratio.square_mean == pytest.approx(1.2)
    ratio = GainRatio()
    ratio.update(2.0, 0.1, 2)
    assert (ratio.variance, ratio.square_mean) == pytest.approx((1.8, 0.0))


def test_a_change_of_scale_leaves_the_statistics() -> None:
    """Averages (6, 2): at S = 3 the gain is 2, at S = 6 it is 8 / 3, at S = 2 it is 8 / 5."""
    ratio = GainRatio()
    for _ in range(4):
        ratio.update(*_norms(6.0, 2.0, 3))
    assert [ratio.at(count) for count in (3, 6, 2, 1)] == pytest.approx([2, 8 / 3, 8 / 5, 1])
    assert ratio.update(*_norms(6.0, 2.0, 6)) == pytest.approx(8 / 3)
    assert ratio.update(*_norms(6.0, 2.0, 2)) == pytest.approx(8 / 5)
    assert (ratio.variance, ratio.square_mean) == pytest.approx((6.0, 2.0))


def test_state_survives_json_bit_for_bit() -> None:
    ratio, other = GainRatio(), GainRatio()
    for variance in (0.1, 0.7, 0.3):
        ratio.update(*_norms(variance, 1 / 3, 3))
    other.load_state_dict(json.loads(json.dumps(ratio.state_dict())))
    assert other.state_dict() == ratio.state_dict()
    assert other.update(*_norms(0.9, 0.2, 3)) == ratio.update(*_norms(0.9, 0.2, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_refuses_infinite_norms_and_keeps_its_statistics(bad: float) -> None:
    ratio = GainRatio()
    ratio.update(*_norms(6.0, 2.0, 3))
    before = ratio.state_dict()
    with pytest.raises(FloatingPointError, match="skip this step or lower the learning rate"):
        ratio.update(bad, 1.0, 3)
    assert ratio.state_dict() == before


def test_refuses_a_sum_of_gradients_in_place_of_their_mean() -> None:
    with pytest.raises(ValueError, match="pass the mean of the 4 base batches"):
        GainRatio().update(4.0, 16.0, 4)


def test_refuses_what_has_no_variance_a_foreign_state_and_bad_settings() -> None:
    with pytest.raises(ValueError, match="average at least 2"):
        base_batch_moments(1.0, 1.0, 1)
    with pytest.raises(ValueError, match="start anew"):
        GainRatio().load_state_dict({"step": 3})
    with pytest.raises(ValueError, match="memory_batches is 0"):
        AdaScaleConfig(memory_batches=0)
    with pytest.raises(ValueError, match=r"variance_floor_fraction is 1\.0"):
        AdaScaleConfig(variance_floor_fraction=1.0)
