"""The gain of averaging S base batches: how much further one step may go than at S = 1.

The statistics are those of the gradient of a single base batch, whose size never changes: sigma^2,
the trace of its covariance, and mu^2, the squared norm of its mean. The gain is
r = (sigma^2 + mu^2) / (sigma^2 / S + mu^2), from 1 (no noise) to S (noise only). Because neither
statistic depends on S, a change of S leaves what was averaged so far as it is.

Source: adascale 6.1 (Johnson, Agrawal, Gu, Guestrin, "AdaScale SGD", 2020), with the choices there.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

# A mean of gradients cannot be longer than their root mean square. What exceeds it by less than
# this factor of the square can be rounding or slightly unequal base batches.
_EXCESS = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaScaleConfig:
    """Say how long the gain's statistics are averaged, and how they are kept from vanishing.

    Attributes:
        memory_batches: Base batches that the averages remember: theta = max(1 - S / this, 0).
        variance_floor_fraction: Least sigma^2 of one step as a share of sigma^2 + mu^2. Relative,
            because an absolute floor turns small gradients into noise.
    """

    memory_batches: int = 1000
    variance_floor_fraction: float = 1e-6

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.memory_batches < 1:
            raise ValueError(
                f"memory_batches is {self.memory_batches}; give at least 1 (1000 as published)"
            )
        if not 0 <= self.variance_floor_fraction < 1:
            raise ValueError(
                f"variance_floor_fraction is {self.variance_floor_fraction}; give one in [0, 1)"
            )


def base_batch_moments(
    sum_of_square_norms: float, square_norm_of_mean: float, count: int
) -> tuple[float, float]:
    """Return unbiased estimates of (sigma^2, mu^2) of a base batch's gradient from one step.

    Neither is clipped, so chance can make either of them negative.

    Args:
        sum_of_square_norms: Sum over the base batches of the squared norm of their mean gradient.
        square_norm_of_mean: Squared norm of the plain mean of those gradients.
        count: Base batches averaged, at least 2.

    Raises:
        FloatingPointError: If a norm is infinite or not a number.
        ValueError: If there are fewer than two batches, or the mean cannot be one.

    Source: adascale 6.1. With E||g||^2 = sigma^2 + mu^2 and E||mean||^2 = sigma^2 / S + mu^2, two
    equations are solved for two unknowns.
    """
    if count < 2:
        raise ValueError(f"{count} base batch has no variance; average at least 2")
    if not math.isfinite(sum_of_square_norms + square_norm_of_mean):
        raise FloatingPointError(
            f"the squared gradient norms are {sum_of_square_norms} (sum) and "
            f"{square_norm_of_mean} (mean); skip this step or lower the learning rate"
        )
    mean_square = sum_of_square_norms / count
    if square_norm_of_mean > _EXCESS * mean_square:
        raise ValueError(
            f"the mean gradient's squared norm {square_norm_of_mean} is above the base batches' "
            f"own mean {mean_square}; pass the mean of the {count} base batches' gradients, not "
            "their sum, and note each of them before clipping"
        )
    variance = (mean_square - square_norm_of_mean) * count / (count - 1)
    return variance, square_norm_of_mean - variance / count


class GainRatio:
    """Average the two statistics over the steps and return their gain; see the module."""

    def __init__(self, config: AdaScaleConfig | None = None) -> None:
        """Start without statistics."""
        self._config = config or AdaScaleConfig()
        self._averages = _Averages(updates=0, variance=0.0, square_mean=0.0)

    @property
    def variance(self) -> float:
        """Return the averaged sigma^2 of one base batch."""
        return self._averages.variance

    @property
    def square_mean(self) -> float:
        """Return the averaged mu^2."""
        return self._averages.square_mean

    def update(self, sum_of_square_norms: float, square_norm_of_mean: float, count: int) -> float:
        """Take in one step's norms and return the gain of that step.

        A plain running mean is kept until it is as slow as the decaying one with weight
        1 - theta. The first step that has a variance returns 1: its own estimate alone is too
        noisy to stretch a step with. A single base batch says nothing about the variance: it
        changes no average and its gain is 1.

        Args:
            sum_of_square_norms: See `base_batch_moments`.
            square_norm_of_mean: See `base_batch_moments`.
            count: Base batches of this step (S).

        Returns:
            The gain, in [1, count].

        Raises:
            FloatingPointError: If a norm is infinite or not a number; nothing has changed then.
            ValueError: If the mean cannot be one; nothing has changed then.
        """
        if count == 1:
            return 1.0
        variance, square_mean = base_batch_moments(sum_of_square_norms, square_norm_of_mean, count)
        floor = self._config.variance_floor_fraction * (variance + square_mean)
        averages = self._averages
        is_first = averages.updates == 0
        averages.updates += 1
        weight = max(1 / averages.updates, min(count / self._config.memory_batches, 1.0))
        averages.variance += weight * (max(variance, floor) - averages.variance)
        averages.square_mean += weight * (max(square_mean, 0.0) - averages.square_mean)
        return 1.0 if is_first else self.at(count)

    def at(self, count: int) -> float:
        """Return the gain of `count` base batches per step by the averages as they stand.

        Without statistics, or if every gradient was zero, it is 1.
        """
        if count == 1:
            return 1.0
        variance, square_mean = self.variance, self.square_mean
        noisy_square = variance / count + square_mean
        if noisy_square == 0:
            return 1.0
        return min(max((variance + square_mean) / noisy_square, 1.0), float(count))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON."""
        return asdict(self._averages)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, of any number of base batches per step.

        Raises:
            ValueError: If it is not a state of this class.
        """
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(
                f"a gain's state holds {sorted(self.state_dict())}, this one "
                f"{sorted(state_dict)}; continue from a checkpoint of AdaScale or start anew"
            )
        self._averages = _Averages(**state_dict)


@dataclass(kw_only=True, slots=True)
class _Averages:
    """Hold all that changes, in plain values."""

    updates: int
    variance: float
    square_mean: float
