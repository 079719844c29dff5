"""The arithmetic of HDET: spread, evidence of the replicas' losses, and the learning-rate update.

Pure functions of numbers, equal on every replica. Source: hdet 2.1, with the choices of 2.4, 2.5.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Shapes: N replicas, G parameter groups, P probe examples.


@dataclass(frozen=True, kw_only=True, slots=True)
class HdetConfig:
    """Say how replicas differ, how often they meet, and what their losses may change.

    Attributes:
        spread_fraction: Half width of the replicas' learning rates around the mean (alpha).
        sync_steps: Steps between converges (T).
        gradient_sync: "shared" (every step, as published) or "local" (only parameters meet).
        auto_lr: Whether the losses steer the learning rate.
        auto_warmup_steps: Steps before the first steering.
        update: "multiplicative" (relative velocity) or "additive" (as published).
        momentum_fraction: Momentum of the velocity (beta).
        gain: Weight of the velocity (lambda).
        decay_fraction: Extra decay of the learning rate per sync (gamma).
        sigma: Temperature of the loss differences; None measures the noise and gates by it.
        significance: Variance ratio of replicas to noise below which nothing is steered.
        min_multiplier: Lower clamp of the learned factor on the envelope.
        max_multiplier: Upper clamp.
        noise_fraction: Relative size of the initial noise per replica (nu).
        seed: Seed of permutations and noise.
    """

    spread_fraction: float = 1 / 9
    sync_steps: int = 50
    gradient_sync: str = "shared"
    auto_lr: bool = True
    auto_warmup_steps: int = 0
    update: str = "multiplicative"
    momentum_fraction: float = 0.9
    gain: float = 0.5
    decay_fraction: float = 0.0
    sigma: float | None = None
    significance: float = 9.0
    min_multiplier: float = 0.1
    max_multiplier: float = 10.0
    noise_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        fractions = ("spread_fraction", "momentum_fraction", "decay_fraction", "noise_fraction")
        for name in fractions:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.sync_steps < 1:
            raise ValueError(f"sync_steps must be at least 1, got {self.sync_steps}")
        if self.gradient_sync not in ("shared", "local"):
            raise ValueError(f"gradient_sync is shared or local, not {self.gradient_sync!r}")
        if self.update not in ("multiplicative", "additive"):
            raise ValueError(f"update is multiplicative or additive, not {self.update!r}")
        if not 0 < self.min_multiplier <= 1 <= self.max_multiplier:
            raise ValueError("multiplier clamps must enclose 1 and be positive")
        if self.sigma is not None and self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")


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


def window_evidence(sums_N3: Tensor) -> Evidence:
    """Return the evidence of the training losses of a window.

    Args:
        sums_N3: Sum, sum of squares and number of each replica's step losses.
    """
    total, squares, count = sums_N3.double().unbind(dim=1)
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0) * count / (count - 1).clamp_min(1)
    return Evidence(losses=mean, noise=float((variance / count).mean().sqrt()))


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
