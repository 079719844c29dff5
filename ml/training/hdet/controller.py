"""The arithmetic of HDET: spread, who is fit, evidence of the losses, and the update.

Pure functions of numbers, equal on every replica. Source: hdet 2.1, with the choices of 2.4, 2.5.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ml.training.hdet.config import HdetConfig

# Shapes: N replicas, P probe examples.
# Standard errors by which a diverged replica is worse.
_CERTAIN = 5.0
# Steps of a window from which on it may say that a replica diverged.
_JUDGED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Hold what one sync knows about the replicas' losses.

    Attributes:
        losses: Mean loss of each replica, [N].
        noise: Standard error of one replica's mean loss.
    """

    losses: Tensor
    noise: float

    @property
    def variance_ratio(self) -> float:
        """Return the variance of the losses over what noise alone would give."""
        variance = float(self.losses.var(correction=1))
        if variance == 0:
            return 0.0
        return variance / self.noise**2 if self.noise else math.inf


def spread(num_replicas: int, *, fraction: float) -> Tensor:
    """Return the learning-rate factor of each place, float64 [N]: mean 1, rising."""
    place = torch.arange(num_replicas, dtype=torch.float64) - (num_replicas - 1) / 2
    return 1 + fraction * place / max((num_replicas - 1) / 2, 0.5)


def permutation(num_replicas: int, *, seed: int, sync: int, group: int) -> list[int]:
    """Return which place each replica takes, from a private generator.

    Every replica computes the same one without touching the global random state.
    """
    generator = np.random.default_rng((seed, sync, group))
    return generator.permutation(num_replicas).tolist()


def fit_replicas(
    healthy: Sequence[bool], sums_N3: Tensor, *, divergence_factor: float
) -> list[bool]:
    """Return which replicas may take part in the mean.

    Left out is who says so itself, whose window has a loss that is not finite, and who diverged:
    whose mean loss is above `divergence_factor` times the median of the other healthy replicas'
    and further from it than five standard errors of theirs. Short windows of few examples differ
    by such factors without anybody diverging, so windows of less than eight steps judge nobody.

    Args:
        healthy: What each replica says of itself.
        sums_N3: Sum, sum of squares and number of each replica's step losses.
        divergence_factor: How much worse than the others is too bad.
    """
    means_N, errors_N = _means(sums_N3)
    means, errors, counts = means_N.tolist(), errors_N.tolist(), sums_N3[:, 2].tolist()
    alive = [
        says and (count == 0 or math.isfinite(mean))
        for says, count, mean in zip(healthy, counts, means, strict=True)
    ]
    known = [rank for rank, is_alive in enumerate(alive) if is_alive]
    if len(known) < 2 or min(counts[rank] for rank in known) < _JUDGED:
        return alive
    fit = list(alive)
    for rank in known:
        others = [other for other in known if other != rank]
        middle = statistics.median(means[other] for other in others)
        noise = max(errors[other] for other in others)
        limit = max(divergence_factor * middle, middle + _CERTAIN * noise)
        fit[rank] = middle <= 0 or means[rank] <= limit
    return fit


def window_evidence(sums_N3: Tensor) -> Evidence:
    """Return the evidence of the training losses of a window.

    Args:
        sums_N3: Sum, sum of squares and number of each replica's step losses.
    """
    means_N, errors_N = _means(sums_N3)
    return Evidence(losses=means_N, noise=float((errors_N**2).mean().sqrt()))


def _means(sums_N3: Tensor) -> tuple[Tensor, Tensor]:
    """Return each window's mean loss and its standard error, [N] each."""
    total, squares, count = sums_N3.double().unbind(dim=1)
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0) * count / (count - 1).clamp_min(1)
    return mean, (variance / count).sqrt()


def probe_evidence(losses_NP: Tensor) -> Evidence:
    """Return the evidence of one shared probe batch, paired over its examples.

    For two replicas the variance ratio is the squared paired t-statistic.
    """
    losses_NP = losses_NP.double()
    num_replicas, num_examples = losses_NP.shape
    mean_N = losses_NP.mean(dim=1)
    paired = losses_NP - losses_NP.mean(dim=0) - mean_N[:, None] + losses_NP.mean()
    freedom = max((num_replicas - 1) * (num_examples - 1), 1)
    return Evidence(
        losses=mean_N, noise=math.sqrt(float((paired**2).sum()) / freedom / num_examples)
    )


def weights(evidence: Evidence, *, config: HdetConfig) -> Tensor:
    """Return how much each replica's learning rate counts: a softmax of better losses, [N].

    With a measured sigma, differences are divided by the standard error of a difference (from
    four replicas on by their standard deviation, if larger) and shrunk by how far the variance
    ratio exceeds `significance`; noise alone therefore leaves the weights equal.
    """
    losses = evidence.losses
    better = losses.mean() - losses
    if config.sigma is not None:
        return torch.softmax(better / config.sigma, dim=0)
    ratio = evidence.variance_ratio
    if ratio <= config.significance:
        return torch.full_like(losses, 1 / len(losses))
    sigma = math.sqrt(2) * evidence.noise
    if len(losses) >= 4 or sigma == 0:
        sigma = max(float(losses.std(correction=0)), sigma)
    return torch.softmax((1 - config.significance / ratio) * better / sigma, dim=0)


def push_of(values_N: Tensor, weights_N: Tensor) -> float:
    """Return the weighted over the plain mean value, minus 1: where better replicas are."""
    return float((weights_N * values_N).sum() / values_N.mean()) - 1


def steer(
    multiplier: float, velocity: float, push: float, *, envelope: float, config: HdetConfig
) -> tuple[float, float]:
    """Return the next (multiplier, velocity) of one group.

    Args:
        multiplier: Learned factor on the envelope.
        velocity: Relative (multiplicative) or in units of the learning rate (additive).
        push: Loss-weighted over plain mean learning rate, minus 1.
        envelope: Learning rate of the schedule at this step.
        config: Gain, momentum, decay and clamps.
    """
    beta, keep = config.momentum_fraction, 1 - config.decay_fraction
    if config.update == "multiplicative":
        velocity = beta * velocity + (1 - beta) * push
        moved = multiplier * math.exp(config.gain * velocity) * keep
    else:
        rate = multiplier * envelope
        velocity = beta * velocity + (1 - beta) * push * rate
        moved = (rate * keep + config.gain * velocity) / envelope
    return min(max(moved, config.min_multiplier), config.max_multiplier), velocity
