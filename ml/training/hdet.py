"""HDET's scheduler: replicas with different learning rates that meet, compare and steer.

Use it like torch's OneCycleLR: `optimizer.step()`, then `scheduler.step(loss)`. The learning rate
of replica r is envelope(t) x multiplier x factor of the place that r holds. Gradients are the
caller's: all-reduced every step in "shared" mode. Averaged are parameters (and the optimiser's
moments in "local" mode), not buffers; optimisers that shard their state cannot be used.

Source: hdet 2.1; the published scheduler's defects are in 2.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ml.training.collectives import Collectives, SingleReplica
from ml.training.flat import pack, unpack_into
from ml.training.hdet_controller import (
    Evidence,
    HdetConfig,
    permutation,
    probe_evidence,
    spread,
    steer,
    weights,
    window_evidence,
)
from ml.training.one_cycle import OneCycle

Probe = Callable[[int], Tensor]
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """Tell what happened when the replicas met.

    Attributes:
        step: Optimiser steps so far.
        difference_before: Largest difference of any parameter between replicas before.
        difference_after: The same after the converge.
        learning_rates: Of the window that ended, [replica][group].
        multipliers: Learned factor of each group, after steering.
        losses: Loss of each replica that the controller saw; empty if it did not look.
        variance_ratio: Variance of those losses over noise, NaN if it did not look.
    """

    step: int
    difference_before: float
    difference_after: float
    learning_rates: list[list[float]]
    multipliers: list[float]
    losses: list[float]
    variance_ratio: float


class HDETScheduler:
    """Drive an optimiser's learning rates on one replica; see the module."""

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
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        *,
        config: HdetConfig | None = None,
        collectives: Collectives | None = None,
        probe: Probe | None = None,
    ) -> None:
        """Set the learning rates of the first step; nothing is exchanged yet.

        The arguments before the star are those of torch's OneCycleLR, with the same meaning.

        Args:
            config: Spread, syncs and controller.
            collectives: How to reach the other replicas.
            probe: Takes a sync's number, returns the losses of shared examples on this replica.

        Raises:
            ValueError: If the number of steps is unknown, or few replicas would steer without a
                probe.
        """
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        cycle = OneCycle(
            total_steps=total_steps,
            pct_start=pct_start,
            anneal_strategy=anneal_strategy,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
        )
        num_groups = len(optimizer.param_groups)
        peaks = [max_lr] * num_groups if isinstance(max_lr, int | float) else max_lr
        self._optimizer, self._cycle_momentum = optimizer, cycle_momentum
        self._cycles = [replace(cycle, max_lr=peak) for peak in peaks]
        self._config, self._probe = config or HdetConfig(), probe
        self._collectives = collectives or SingleReplica()
        self._begin(last_epoch + 1)

    @property
    def total_steps(self) -> int:
        """Return the steps of the cycle."""
        return self._cycles[0].total_steps

    def step(self, loss: Tensor | float | None = None) -> SyncReport | None:
        """Advance by one optimiser step; every `sync_steps` the replicas meet.

        Args:
            loss: This replica's own training loss of the step; None counts nothing.

        Returns:
            What happened at a sync, otherwise None.

        Raises:
            ValueError: If the cycle is over.
        """
        if self._state.step >= self.total_steps:
            raise ValueError(f"the cycle of {self.total_steps} steps is over")
        if loss is not None:
            value = float(loss)
            for place, term in enumerate((value, value * value, 1.0)):
                self._state.window[place] += term
        self._state.step += 1
        report = self.sync() if self._state.step % self._config.sync_steps == 0 else None
        self._apply()
        return report

    def sync(self) -> SyncReport | None:
        """Let the replicas meet now: compare, converge, steer; None if nothing has changed since.

        Call it before evaluating or saving: only then are the replicas equal.
        """
        state = self._state
        if not self._diverges or state.step == state.last_sync_step:
            return None
        rates = self._all_learning_rates()
        evidence = self._evidence()
        before = self._largest_difference()
        self._converge()
        after = self._largest_difference()
        if evidence is not None:
            self._steer(weights(evidence, config=self._config))
        state.sync += 1
        state.last_sync_step = state.step
        state.window = [0.0, 0.0, 0.0]
        if self._config.auto_lr:
            self._permute()
        self._apply()
        return SyncReport(
            step=state.step,
            difference_before=before,
            difference_after=after,
            learning_rates=rates,
            multipliers=list(state.multipliers),
            losses=[] if evidence is None else evidence.losses.tolist(),
            variance_ratio=float("nan") if evidence is None else evidence.variance_ratio,
        )

    def get_last_lr(self) -> list[float]:
        """Return this replica's learning rate of each group."""
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON."""
        return asdict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state; the replicas' number must be the same.

        Raises:
            ValueError: If the state is of another number of replicas or groups.
        """
        state = _State(**state_dict)
        shape = [len(places) for places in state.places]
        if shape != [len(places) for places in self._state.places]:
            raise ValueError(f"the state is of {shape} replicas per group; start without it")
        self._state = state
        self._apply()

    @property
    def _diverges(self) -> bool:
        """Return whether replicas can differ at all."""
        config = self._config
        causes = config.spread_fraction, config.noise_fraction, config.gradient_sync == "local"
        return self._collectives.size > 1 and any(causes)

    def _begin(self, step: int) -> None:
        """Start from a step with everything learned at rest."""
        size, num_groups = self._collectives.size, len(self._cycles)
        if self._config.auto_lr and 1 < size < 4 and self._probe is None:
            raise ValueError("auto_lr with fewer than four replicas needs a probe")
        if num_groups != len(self._optimizer.param_groups):
            raise ValueError(f"max_lr has {num_groups} values, the optimizer has other groups")
        self._factors = spread(size, fraction=self._config.spread_fraction)
        self._state = _State(
            step=step,
            last_sync_step=step,
            sync=0,
            multipliers=[1.0] * num_groups,
            velocities=[0.0] * num_groups,
            places=[list(range(size)) for _ in range(num_groups)],
            window=[0.0, 0.0, 0.0],
        )
        self._apply()

    def _apply(self) -> None:
        """Write learning rate and momentum of the next step into the optimiser."""
        for index, group in enumerate(self._optimizer.param_groups):
            rate, momentum = self._cycles[index].at(self._state.step)
            place = self._state.places[index][self._collectives.rank]
            group["lr"] = rate * self._state.multipliers[index] * float(self._factors[place])
            if self._cycle_momentum and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif self._cycle_momentum:
                group["momentum"] = momentum

    def _all_learning_rates(self) -> list[list[float]]:
        """Return the learning rates in use, [replica][group]."""
        device = self._optimizer.param_groups[0]["params"][0].device
        own = torch.tensor(self.get_last_lr(), dtype=torch.float64, device=device)
        return self._collectives.gather(own).tolist()

    def _evidence(self) -> Evidence | None:
        """Return the replicas' losses if the controller may look, otherwise None."""
        state, config = self._state, self._config
        if not config.auto_lr or state.step < config.auto_warmup_steps:
            return None
        if self._probe is not None:
            return probe_evidence(self._collectives.gather(self._probe(state.sync)).cpu())
        if state.window[2] < 2:
            return None
        device = self._optimizer.param_groups[0]["params"][0].device
        window = torch.tensor(state.window, dtype=torch.float64, device=device)
        return window_evidence(self._collectives.gather(window).cpu())

    def _steer(self, weights_N: Tensor) -> None:
        """Move each group's multiplier towards the replicas that did better."""
        state = self._state
        for index, cycle in enumerate(self._cycles):
            factors = self._factors[state.places[index]]
            push = float((weights_N * factors).sum() / factors.mean()) - 1
            state.multipliers[index], state.velocities[index] = steer(
                state.multipliers[index],
                state.velocities[index],
                push,
                envelope=cycle.at(state.step)[0],
                config=self._config,
            )

    def _permute(self) -> None:
        """Give every group new places, the same on all replicas."""
        state = self._state
        for index in range(len(state.places)):
            state.places[index] = permutation(
                self._collectives.size, seed=self._config.seed, sync=state.sync, group=index
            )

    def _parameters(self) -> list[Tensor]:
        """Return all optimised parameters."""
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _largest_difference(self) -> float:
        """Return max over parameters and pairs of replicas of the absolute difference."""
        flat = pack(self._parameters())
        top, bottom = self._collectives.maximum(flat), -self._collectives.maximum(-flat)
        return float((top - bottom).max())

    def _converge(self) -> None:
        """Replace what differs by its mean over the replicas."""
        tensors = self._parameters()
        if self._config.gradient_sync == "local":
            states = [self._optimizer.state[parameter] for parameter in tensors]
            tensors += [state[name] for state in states for name in _MOMENTS if name in state]
        unpack_into(self._collectives.sum(pack(tensors)) / self._collectives.size, tensors)


@dataclass(kw_only=True, slots=True)
class _State:
    """Hold all that changes, in plain values."""

    step: int
    last_sync_step: int
    sync: int
    multipliers: list[float]
    velocities: list[float]
    places: list[list[int]]
    window: list[float]


def perturb(parameters: Sequence[Tensor], *, fraction: float, seed: int, rank: int) -> None:
    """Add noise of standard deviation fraction x norm / sqrt(size) to each tensor, per replica."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + rank)
    with torch.no_grad():
        for parameter in parameters:
            scale = fraction * float(parameter.norm()) / parameter.numel() ** 0.5
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter) * scale)
