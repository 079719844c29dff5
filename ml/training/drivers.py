"""What takes the optimiser's step and sets its learning rate: HDET's schedule, or AdaScale."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from ml.training.adascale import AdaScale
from ml.training.collectives import Collectives
from ml.training.config import TrainConfig
from ml.training.gradients import Exchanged
from ml.training.hdet.scheduler import HDETScheduler
from ml.training.hdet.state import SyncReport
from ml.training.one_cycle import OneCycle


class Driver(Protocol):
    """Take steps, let replicas meet, and know when the schedule is over."""

    @property
    def is_over(self) -> bool:
        """Return whether all steps of the schedule are taken."""
        ...

    @property
    def separates_batches(self) -> bool:
        """Return whether each batch's own gradient is wanted, as that of its mean loss."""
        ...

    def begin_step(self) -> None:
        """Forget what was noted of a step that was not taken."""
        ...

    def note_batch(self, gradients: list[Tensor]) -> None:
        """Take in the mean gradients of one batch of this replica."""
        ...

    def step(self, found: Exchanged, *, own_loss: Tensor | None) -> SyncReport | None:
        """Take the optimiser's step with the gradients in place.

        Args:
            found: What the exchange of the gradients found.
            own_loss: Mean loss of this replica's batches, None if it had none.
        """
        ...

    def idle(self) -> SyncReport | None:
        """Go on where there was nothing to learn from, and so no step to take."""
        ...

    def leave_out(self, *, healthy: bool, all_know: bool) -> SyncReport | None:
        """Go on without a step, because something in it is not finite.

        Args:
            healthy: Whether this replica's own share of it was.
            all_know: Whether every replica leaves out this step, or this one alone.
        """
        ...

    def meet(self) -> SyncReport | None:
        """Make the replicas equal, unless they have just met."""
        ...

    def rest(self) -> AbstractContextManager[None]:
        """Give what differs between replicas its mean for a while, to validate."""
        ...

    def cool(self, factor: float) -> None:
        """Take at most this factor of every first learning rate from now on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


class HdetDriver:
    """Step an optimiser and HDET's schedule, which without a spread is the one-cycle schedule."""

    separates_batches = False

    def __init__(self, optimizer: Optimizer, scheduler: HDETScheduler) -> None:
        """Take the scheduler of this optimiser."""
        self._optimizer, self._scheduler = optimizer, scheduler

    @property
    def is_over(self) -> bool:
        """Return whether the cycle is over."""
        return self._scheduler.last_epoch >= self._scheduler.total_steps

    def begin_step(self) -> None:
        """Do nothing."""

    def note_batch(self, gradients: list[Tensor]) -> None:
        """Do nothing: only sums are wanted."""

    def step(self, found: Exchanged, *, own_loss: Tensor | None) -> SyncReport | None:
        """Take the step, then advance the schedule."""
        self._optimizer.step()
        return self._scheduler.step(own_loss)

    def idle(self) -> SyncReport | None:
        """Advance the schedule and take no step."""
        return self._scheduler.step(None)

    def leave_out(self, *, healthy: bool, all_know: bool) -> SyncReport | None:
        """Let the replicas meet, without those that are not healthy; at once if all know."""
        if not all_know:
            return self._scheduler.step(math.nan)
        met = self._scheduler.sync(healthy)
        return self._scheduler.step(None) or met

    def meet(self) -> SyncReport | None:
        """Let the replicas meet unless they have just met."""
        return self._scheduler.sync()

    def rest(self) -> AbstractContextManager[None]:
        """Give hyper-parameters their mean for a while."""
        return self._scheduler.rest()

    def cool(self, factor: float) -> None:
        """Take at most this factor of every learning rate from now on."""
        now = float(self._scheduler.state_dict()["cooling"])
        self._scheduler.cool(min(1.0, factor / now))

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a scheduler's state."""
        self._scheduler.load_state_dict(state)


class AdaScaleDriver:
    """Step SGD by AdaScale along the one-cycle schedule of single base batches."""

    separates_batches = True

    def __init__(
        self,
        optimizer: Optimizer,
        config: TrainConfig,
        *,
        batches_per_step: int,
        steps: int,
        collectives: Collectives,
    ) -> None:
        """Take the budget; the schedule counts it in base batches.

        Args:
            optimizer: SGD.
            config: Learning rate and shape of the cycle.
            batches_per_step: Base batches of a step, over all replicas.
            steps: Steps that the budget is, at one gained step per base batch.
            collectives: How to reach the other replicas.
        """
        assert config.adascale is not None
        self._planned = batches_per_step
        self._cycle = OneCycle(
            total_steps=steps * batches_per_step,
            max_lr=config.learning_rate,
            pct_start=config.warmup_fraction,
            div_factor=config.div_factor,
            final_div_factor=config.final_div_factor,
        )
        self._cooling = 1.0
        self._num_groups = len(optimizer.param_groups)
        self._adascale = AdaScale(
            optimizer,
            self._rates,
            total_steps=steps * batches_per_step,
            batches_per_step=batches_per_step,
            config=config.adascale,
            collectives=collectives,
        )

    @property
    def is_over(self) -> bool:
        """Return whether the base batches of the budget are spent."""
        return self._adascale.is_over

    def begin_step(self) -> None:
        """Forget what was noted of a step that was not taken."""
        self._adascale.set_batches_per_step(self._planned)
        self._adascale.begin_step()

    def note_batch(self, gradients: list[Tensor]) -> None:
        """Take in the mean gradients of one base batch."""
        self._adascale.note_batch(gradients)

    def step(self, found: Exchanged, *, own_loss: Tensor | None) -> SyncReport | None:
        """Take the step; its weight is the number of base batches that there were."""
        self._adascale.set_batches_per_step(int(found.weight))
        self._adascale.step([found.mean])

    def idle(self) -> SyncReport | None:
        """Do nothing: no base batch was spent."""

    def leave_out(self, *, healthy: bool, all_know: bool) -> SyncReport | None:
        """Do nothing: a step that is not taken is not counted."""

    def meet(self) -> SyncReport | None:
        """Do nothing: the replicas never differ."""

    def rest(self) -> AbstractContextManager[None]:
        """Do nothing: the replicas never differ."""
        return nullcontext()

    def cool(self, factor: float) -> None:
        """Take at most this factor of every learning rate from now on."""
        self._cooling = min(self._cooling, factor)

    def state_dict(self) -> dict[str, Any]:
        """Return AdaScale's state and the cooling."""
        return {"adascale": self._adascale.state_dict(), "cooling": self._cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self._adascale.load_state_dict(state["adascale"])
        self._cooling = state["cooling"]

    def _rates(self, step: int) -> list[float]:
        """Return the cooled learning rate of each group at a step of the schedule."""
        return [self._cycle.at(step)[0] * self._cooling] * self._num_groups
