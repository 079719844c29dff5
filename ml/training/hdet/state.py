"""What HDET's scheduler remembers between steps, and what it tells of a meeting."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """Tell what happened when the replicas met.

    Attributes:
        step: Optimiser steps so far.
        difference_before: Largest distance of a parameter from the mean that the replicas took,
            over those that were averaged.
        difference_after: Largest difference of any parameter between replicas after the converge;
            0 where their checksums agree.
        learning_rates: Of the window that ended, [replica][group].
        multipliers: Learned factor of each group, after steering.
        losses: Loss of each replica that the controller saw, NaN of those left out; empty if it
            did not look.
        variance_ratio: Variance of those losses over noise, NaN if it did not look.
        left_out: Replicas that were not fit to be averaged and took the others' mean.
        hyper_values: Of the window that ended, each diverse hyper-parameter, [replica].
        hyper_multipliers: Learned factor of each diverse hyper-parameter, after steering.
        cooling: Product of all coolings of the learning rates.
    """

    step: int
    difference_before: float
    difference_after: float
    learning_rates: list[list[float]]
    multipliers: list[float]
    losses: list[float]
    variance_ratio: float
    left_out: list[int] = field(default_factory=list)
    hyper_values: dict[str, list[float]] = field(default_factory=dict)
    hyper_multipliers: dict[str, float] = field(default_factory=dict)
    cooling: float = 1.0


@dataclass(kw_only=True, slots=True)
class HdetState:
    """Hold all that changes, in plain values; lists have one entry per channel.

    Attributes:
        step: Optimiser steps so far.
        last_sync_step: Step of the last meeting.
        sync: Number of meetings.
        names: What the channels are.
        bases: Value of each channel before anything was learned; 1 for learning rates.
        multipliers: Learned factor of each channel.
        velocities: Momentum of what is learned.
        places: Which place of the spread each replica holds, [channel][replica].
        window: Sum, sum of squares and number of this replica's losses since the last meeting.
        cooling: Factor on all learning rates.
    """

    step: int
    last_sync_step: int
    sync: int
    multipliers: list[float]
    velocities: list[float]
    places: list[list[int]]
    window: list[float]
    names: list[str] = field(default_factory=list)
    bases: list[float] = field(default_factory=list)
    cooling: float = 1.0

    def note(self, loss: float) -> None:
        """Add a step's loss to the window."""
        for place, term in enumerate((loss, loss * loss, 1.0)):
            self.window[place] += term

    def met(self) -> None:
        """Count a meeting and begin a new window."""
        self.sync += 1
        self.last_sync_step = self.step
        self.window = [0.0, 0.0, 0.0]


def read_state(values: dict[str, Any], *, names: list[str]) -> HdetState:
    """Return the state of a state dict for channels of these names.

    Raises:
        ValueError: If the state is of other channels.
    """
    state = HdetState(**values)
    if state.names != names:
        raise ValueError(
            f"the state is of {state.names or len(state.places)}, this scheduler drives {names}; "
            "continue with the same parameter groups and `diverse`, or start without the state"
        )
    return state
