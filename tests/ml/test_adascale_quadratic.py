"""AdaScale's convergence on a noisy quadratic, against SGD at S = 1 and linear scaling."""

import torch
from torch import Tensor, nn

from ml.training.adascale import AdaScale
from tests.ml.adascale_steps import feed

# Shapes: S base batches per step, D columns, K seeds.

# On the quadratic F(x) = sum(h x^2) / 2 with h from 0.1 to 1, beta = 1 and the PL constant is 0.1.
CURVATURE_D = torch.linspace(0.1, 1.0, 50, dtype=torch.float64)
RATE, NOISE, QUADRATIC_STEPS, SEEDS = 0.2, 3.0, 300, 64


def _loss(weights: Tensor) -> Tensor:
    return (CURVATURE_D * weights.square()).sum(dim=-1) / 2


def _quadratic(scale: int, *, seed: int) -> tuple[float, int]:
    """Return AdaScale's final loss on the noisy quadratic and its iterations."""
    weights = nn.Parameter(torch.full_like(CURVATURE_D, 5.0))
    adascale = AdaScale(
        torch.optim.SGD([weights], lr=1.0),
        lambda step: [RATE],
        total_steps=QUADRATIC_STEPS,
        batches_per_step=scale,
    )
    generator = torch.Generator().manual_seed(seed)
    while not adascale.is_over:
        noise_SD = torch.randn(scale, 50, generator=generator, dtype=torch.float64)
        feed(adascale, (CURVATURE_D * weights.detach()) + NOISE * noise_SD)
    return float(_loss(weights.detach())), adascale.iterations


def _sgd_quadratic(*, num_steps: int, rate: float, noise: float) -> Tensor:
    """Return plain SGD's final losses of all seeds at once, [K]."""
    weights_KD = torch.full((SEEDS, 50), 5.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        draw_KD = torch.randn(SEEDS, 50, generator=generator, dtype=torch.float64)
        weights_KD = weights_KD - rate * (CURVATURE_D * weights_KD + noise * draw_KD)
    return _loss(weights_KD)


def test_noisy_quadratic_ends_as_low_at_scale_four_in_far_fewer_iterations() -> None:
    """Here S gamma = 4 x 0.2 x 0.1 x (2 - 0.2) = 0.144 <= 1, as the theory asks (6.2)."""
    results = [_quadratic(4, seed=seed) for seed in range(SEEDS)]
    losses = torch.tensor([loss for loss, _ in results])
    one = _sgd_quadratic(num_steps=QUADRATIC_STEPS, rate=RATE, noise=NOISE)
    assert losses.mean() <= 1.1 * one.mean()
    linear = _sgd_quadratic(num_steps=QUADRATIC_STEPS // 4, rate=4 * RATE, noise=NOISE / 2)
    assert linear.mean() > 1.1 * one.mean(), "the limit does not tell the two rules apart"
    assert max(iterations for _, iterations in results) < 0.4 * QUADRATIC_STEPS


def test_linear_scaling_diverges_where_adascale_stays_finite() -> None:
    """At S = 16 the linearly scaled rate is 3.2 > 2 / beta, whatever the noise."""
    linear = _sgd_quadratic(num_steps=QUADRATIC_STEPS // 16, rate=16 * RATE, noise=NOISE / 4)
    start = float(_loss(torch.full_like(CURVATURE_D, 5.0)))
    assert linear.min() > 1e6 * start
    losses = [_quadratic(16, seed=seed)[0] for seed in range(8)]
    assert max(losses) < start
