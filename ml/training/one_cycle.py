"""The one-cycle envelope of learning rate and momentum in closed form."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle:
    """Rise from max_lr / div_factor to max_lr, then fall to a fraction of where it began.

    The values equal those of torch.optim.lr_scheduler.OneCycleLR with the same arguments.

    Attributes:
        total_steps: Steps of the whole cycle.
        max_lr: Peak learning rate.
        pct_start: Share of the steps spent rising.
        anneal_strategy: "cos" or "linear".
        base_momentum: Momentum at the peak.
        max_momentum: Momentum at both ends.
        div_factor: Peak over first learning rate.
        final_div_factor: First over last learning rate.
        three_phase: Fall back to the first learning rate before the last fall.
    """

    total_steps: int
    max_lr: float = 1.0
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    base_momentum: float = 0.85
    max_momentum: float = 0.95
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"pct_start must be in [0, 1], got {self.pct_start}")
        if self.anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy is cos or linear, not {self.anneal_strategy!r}")
        if min(self.max_lr, self.div_factor, self.final_div_factor) <= 0:
            raise ValueError("max_lr, div_factor and final_div_factor must be positive")

    def at(self, step: int) -> tuple[float, float]:
        """Return (learning rate, momentum) of a step, from 0 to total_steps.

        Raises:
            ValueError: If the step is past the end.
        """
        if not 0 <= step <= self.total_steps:
            raise ValueError(f"step {step} is not in the cycle of {self.total_steps} steps")
        start = 0.0
        phases = self._phases()
        for end, _, _ in phases[:-1]:
            if step <= end:
                break
            start, phases = end, phases[1:]
        end, rates, momenta = phases[0]
        done = min((step - start) / (end - start), 1.0) if end > start else 1.0
        return self._anneal(*rates, done), self._anneal(*momenta, done)

    def _phases(self) -> list[tuple[float, tuple[float, float], tuple[float, float]]]:
        """Return (last step, learning rates from and to, momenta from and to) of each phase."""
        first = self.max_lr / self.div_factor
        last = first / self.final_div_factor
        high, low = self.max_momentum, self.base_momentum
        peak_step = self.pct_start * self.total_steps - 1
        rise = (peak_step, (first, self.max_lr), (high, low))
        if not self.three_phase:
            return [rise, (self.total_steps - 1, (self.max_lr, last), (low, high))]
        back_step = 2 * self.pct_start * self.total_steps - 2
        return [
            rise,
            (back_step, (self.max_lr, first), (low, high)),
            (self.total_steps - 1, (first, last), (high, high)),
        ]

    def _anneal(self, start: float, end: float, done: float) -> float:
        """Return the value between start and end after a share of the phase."""
        if self.anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
