"""HDET's scheduler: replicas with different hyper-parameters that meet, compare and steer.

Use it like torch's OneCycleLR: `optimizer.step()`, then `scheduler.step(loss)`. The learning rate
of replica r is envelope(t) x multiplier x factor of the place that r holds; other scalars of
hyper_parameters.py may vary beside it or instead of it, each with places of its own. Gradients are
the caller's: all-reduced every step in "shared" mode. Averaged are parameters (and the optimiser's
moments in "local" mode), not buffers; where parameters or state are sharded, averaging is refused.
Of embedding tables that come with `touched`, only rows that a gradient has reached since the last
meeting are averaged: step the scheduler while the step's gradients are still in place.

With `cycle_momentum` the momentum follows the cycle's step alone: it is the same on all replicas
and knows neither multiplier nor places, whatever the controller does to the learning rate. After
the last step the cycle rests at its floor, where torch's would run past it.

Source: hdet 2.1; the published scheduler's defects are in 2.5.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ml.training.collectives import Collectives, SingleReplica
from ml.training.hdet.config import HdetConfig
from ml.training.hdet.converge import Converger
from ml.training.hdet.cycle import check_momentum, cycles_of, steps_of_cycle
from ml.training.hdet.ensemble import Ensemble, Probe
from ml.training.hdet.hyper_parameters import HyperParameter
from ml.training.hdet.places import channels_of, deal, first_state, mean_value, value_of
from ml.training.hdet.state import SyncReport, read_state
from ml.training.one_cycle import OneCycle
from ml.training.tables.touched_rows import TouchedRows


class HDETScheduler(LRScheduler):
    """Drive an optimiser's learning rates, and other scalars, on one replica; see the module."""

    def __init__(  # noqa: D417, PLR0913
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        *,
        config: HdetConfig | None = None,
        collectives: Collectives | None = None,
        probe: Probe | None = None,
        hyper_parameters: Mapping[str, HyperParameter] | None = None,
        touched: Mapping[Tensor, TouchedRows] | None = None,
    ) -> None:
        """Set the values of the first step; nothing is stepped or exchanged yet.

        The arguments before the star are those of torch's OneCycleLR, with the same meaning.

        Args:
            config: Spread, syncs and controller.
            collectives: How to reach the other replicas.
            probe: Takes a sync's number, returns the losses of shared examples on this replica.
            hyper_parameters: What `config.diverse` may name beside the learning rate.
            touched: Tables, whole on every replica, of which only the touched rows converge.

        Raises:
            TypeError: If the optimizer is none.
            ValueError: If the number of steps is unknown, there is no momentum to cycle, a
                hyper-parameter is unknown, the losses cannot tell what shall be steered, or the
                optimiser moves rows of a table that no gradient has touched.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if cycle_momentum:
            check_momentum(optimizer)
        shape = OneCycle(
            total_steps=steps_of_cycle(total_steps, epochs, steps_per_epoch),
            pct_start=pct_start,
            anneal_strategy=anneal_strategy,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
        )
        momenta, resumes = (base_momentum, max_momentum), last_epoch != -1
        self._cycles = cycles_of(optimizer, shape, max_lr=max_lr, momenta=momenta, resumes=resumes)
        self._cycle_momentum = cycle_momentum
        self._config, self._probe = config or HdetConfig(), probe
        self._collectives = collectives or SingleReplica()
        self._converger = Converger(optimizer, self._collectives, touched)
        super().__init__(optimizer, last_epoch)
        self._begin(last_epoch + 1, hyper_parameters or {})

    @property
    def total_steps(self) -> int:
        """Return the steps of the cycle."""
        return self._cycles[0].total_steps

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, loss: Tensor | float | None = None
    ) -> SyncReport | None:
        """Advance by one optimiser step; every `sync_steps` the replicas meet.

        Args:
            loss: This replica's own training loss of the step; None counts nothing. With one
                that is not finite, the replica is left out of the next mean.

        Returns:
            What happened at a sync, otherwise None.

        Raises:
            ValueError: If the cycle is over.
            FloatingPointError: As `sync`.
        """
        state = self._state
        if state.step >= self.total_steps:
            raise ValueError(
                f"step {state.step + 1}, but the cycle of {self.total_steps} steps is over"
            )
        if loss is not None:
            state.note(float(loss))
        self._ensemble.note()
        state.step += 1
        self._step_count += 1
        report = self.sync() if state.step % self._config.sync_steps == 0 else None
        self._apply()
        return report

    def sync(self, healthy: bool = True) -> SyncReport | None:
        """Let the replicas meet now: compare, converge, steer; None if nothing has changed since.

        Call it before evaluating or saving: only then are the replicas equal. A replica is left
        out of the mean and takes it, moments included, if it is not healthy, holds a number that
        is not finite, or has diverged (`HdetConfig.divergence_factor`); its loss steers nothing.

        Args:
            healthy: Whether this replica vouches for what it holds.

        Raises:
            FloatingPointError: If no replica is fit to be averaged.
            ValueError: If the replicas hold different numbers of elements.
        """
        report = self._ensemble.sync(self._state, self.get_last_lr(), healthy=healthy)
        if report is not None:
            self._apply()
        return report

    def cool(self, factor: float) -> None:
        """Multiply all learning rates from now on, beside what the controller learns.

        The product of all coolings is kept in the state, outside the controller's clamps. Call it
        on all replicas alike.

        Args:
            factor: Above 0, at most 1.

        Raises:
            ValueError: If the factor is out of range.
        """
        if not 0 < factor <= 1:
            raise ValueError(f"the factor must be above 0 and at most 1, got {factor}")
        self._state.cooling *= factor
        self._apply()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Give hyper-parameters their mean value for a while: to validate, or to save."""
        self.settle()
        try:
            yield
        finally:
            self._apply()

    def settle(self) -> None:
        """Give hyper-parameters their mean value, until the next step; for a training's end."""
        for channel in self._channels:
            if channel.write is not None:
                channel.write(mean_value(self._state, channel))

    def get_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the learning rates that the state gives this replica, one per group."""
        state, rank = self._state, self._collectives.rank
        return [
            cycle.at(state.step)[0] * state.cooling * value_of(state, channel, rank)
            for cycle, channel in zip(self._cycles, self._channels, strict=False)
        ]

    def get_last_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return this replica's learning rate of each group."""
        return [float(rate) for rate in self._last_lr]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON."""
        rows = self._converger.tables.state_dict()
        return asdict(self._state) | ({"touched": rows} if rows else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, also from one of another number of replicas.

        With another number, steps, multipliers, velocities and cooling are kept, places are dealt
        anew, and the losses of the window that had begun are forgotten.

        Raises:
            ValueError: If the state is of other parameter groups, hyper-parameters or tables.
        """
        values = dict(state_dict)
        rows = values.pop("touched", [])
        state = read_state(values, names=[channel.name for channel in self._channels])
        size, seed = self._collectives.size, self._config.seed
        if any(len(places) != size for places in state.places):
            state.window = [0.0, 0.0, 0.0]
            state.places = first_state(self._channels, step=0, size=size, seed=seed).places
            if self._config.auto_lr:
                deal(state, self._channels, size=size, seed=seed)
        self._converger.tables.load_state_dict(rows)
        self._state = state
        self._apply()

    def _initial_step(self) -> None:
        """Count the initial step that torch's schedulers take; `_begin` sets the first values."""
        self._step_count = 1

    def _begin(self, step: int, hyper_parameters: Mapping[str, HyperParameter]) -> None:
        """Start from a step with everything learned at rest."""
        size, config = self._collectives.size, self._config
        self._channels = channels_of(len(self._cycles), hyper_parameters, size=size, config=config)
        self._ensemble = Ensemble(
            self._converger,
            self._channels,
            config=config,
            probe=self._probe,
            envelope=lambda step: [cycle.at(step)[0] for cycle in self._cycles],
        )
        self._state = first_state(self._channels, step=step, size=size, seed=config.seed)
        if config.noise_fraction and self._ensemble.diverges:
            self._converger.tables.note_all()
        self._apply()

    def _apply(self) -> None:
        """Write the values of the next step into the optimiser and wherever else they belong."""
        state, rank = self._state, self._collectives.rank
        for cycle, group, rate in zip(
            self._cycles, self.optimizer.param_groups, self.get_lr(), strict=True
        ):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
            momentum = cycle.at(state.step)[1]
            if self._cycle_momentum and "betas" in self.optimizer.defaults:
                group["betas"] = (momentum, *group["betas"][1:])
            elif self._cycle_momentum:
                group["momentum"] = momentum
        for channel in self._channels:
            if channel.write is not None:
                channel.write(value_of(state, channel, rank))
        self.last_epoch = state.step
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]


def perturb(parameters: Sequence[Tensor], *, fraction: float, seed: int, rank: int) -> None:
    """Add noise of standard deviation fraction x norm / sqrt(size) to each tensor, per replica."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + rank)
    with torch.no_grad():
        for parameter in parameters:
            scale = fraction * float(parameter.norm()) / parameter.numel() ** 0.5
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter) * scale)
