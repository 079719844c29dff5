"""What is done about a loss that is not finite, or that explodes.

The rule. A step whose summed loss or gradient is not finite is left out by every replica: weights
and moments stay as they were before it, and replicas that differ meet at once, without the one at
fault. After too many in a row the training ends. Where each replica follows its own gradients, the
one at fault stands still until the next meeting. A loss whose mean over a window exceeds a multiple
of the lowest window so far has exploded: the training goes back to its newest checkpoint with a
lower learning rate, a stated number of times, and then ends. Numbers are the same on every replica,
so all of them do the same.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Say what counts as diverged, and how often it is mended.

    Attributes:
        skipped_steps: Steps in a row that may be left out; one more ends the training.
        window_steps: Steps over which the loss is averaged before it is judged.
        explosion_factor: Multiple of the lowest window's loss that counts as exploded.
        restores: How often a training goes back to its newest checkpoint.
        cooling_factor: What the learning rate is multiplied by when it does.
    """

    skipped_steps: int = 3
    window_steps: int = 50
    explosion_factor: float = 3.0
    restores: int = 2
    cooling_factor: float = 0.5

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.skipped_steps < 0 or self.restores < 0 or self.window_steps < 1:
            raise ValueError(
                "skipped_steps and restores must be at least 0, window_steps at least 1"
            )
        if self.explosion_factor <= 1 or not 0 < self.cooling_factor < 1:
            raise ValueError("explosion_factor must be above 1 and cooling_factor between 0 and 1")


class TrainingDivergedError(FloatingPointError):
    """Tell that a training cannot go on, at which step, and what to change."""


@dataclass(kw_only=True, slots=True)
class _Window:
    """Hold what the guard remembers, in plain values."""

    loss: float = 0.0
    weight: float = 0.0
    steps: int = 0
    lowest: float = math.inf
    skipped_in_a_row: int = 0
    skipped: int = 0
    restores: int = 0


class LossGuard:
    """Watch the summed losses of a training."""

    def __init__(self, config: GuardConfig) -> None:
        """Begin with nothing seen."""
        self._config, self._seen = config, _Window()

    @property
    def skipped(self) -> int:
        """Return how many steps were left out so far."""
        return self._seen.skipped

    @property
    def restores(self) -> int:
        """Return how often the training went back to a checkpoint."""
        return self._seen.restores

    def skip(self, *, step: int, loss: float, all_know: bool = True) -> None:
        """Note a step that is left out because something in it is not finite.

        Args:
            step: The step.
            loss: Its summed loss.
            all_know: Whether all replicas leave it out; one that does so alone waits for the
                next meeting, where it takes the others' mean.

        Raises:
            TrainingDivergedError: If it is one too many in a row.
        """
        self._seen.skipped += 1
        self._seen.skipped_in_a_row += 1
        if all_know and self._seen.skipped_in_a_row > self._config.skipped_steps:
            raise TrainingDivergedError(
                f"loss or gradient of {self._seen.skipped_in_a_row} steps in a row was not finite "
                f"(the loss is {loss} at step {step}); lower the learning rate, or look for values "
                "in the batches that are not finite"
            )

    def explodes(self, *, loss: float, weight: float, steps: int = 1) -> bool:
        """Note the summed loss and weight of steps; return whether a window ends that exploded."""
        seen, config = self._seen, self._config
        seen.skipped_in_a_row = 0
        seen.loss, seen.weight = seen.loss + loss, seen.weight + weight
        seen.steps += steps
        if seen.steps < config.window_steps:
            return False
        mean = seen.loss / seen.weight if seen.weight else 0.0
        seen.loss, seen.weight, seen.steps = 0.0, 0.0, 0
        exploded = 0 < seen.lowest < math.inf and mean > config.explosion_factor * seen.lowest
        seen.lowest = min(seen.lowest, mean)
        return exploded

    def restore(self, *, step: int, has_checkpoint: bool) -> float:
        """Count one more return to the newest checkpoint; return the learning rate's factor.

        Raises:
            TrainingDivergedError: If there is no checkpoint, or it was tried often enough.
        """
        self._seen.restores += 1
        if not has_checkpoint:
            raise TrainingDivergedError(
                f"the loss exploded before step {step}, and there is no checkpoint to go back to; "
                "lower the learning rate, or write checkpoints within the epoch"
            )
        if self._seen.restores > self._config.restores:
            raise TrainingDivergedError(
                f"the loss exploded before step {step} again, after {self._config.restores} "
                f"returns to a checkpoint with a learning rate of {self._config.cooling_factor} "
                "times the one before; lower the learning rate"
            )
        return self._config.cooling_factor**self._seen.restores

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON; infinity as None."""
        state = asdict(self._seen)
        return state | {"lowest": None if math.isinf(state["lowest"]) else state["lowest"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; returns to a checkpoint that were counted since stay counted."""
        restores = max(self._seen.restores, state["restores"])
        lowest = math.inf if state["lowest"] is None else state["lowest"]
        self._seen = _Window(**state | {"lowest": lowest, "restores": restores})
