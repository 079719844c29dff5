"""A meeting of HDET's replicas: who is fit, what the losses say, the mean, and the steering.

Every replica takes the same decisions from the same exchanged numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ml.training.hdet.config import HdetConfig
from ml.training.hdet.controller import (
    Evidence,
    fit_replicas,
    probe_evidence,
    push_of,
    steer,
    weights,
    window_evidence,
)
from ml.training.hdet.converge import Converger, refuse_shards
from ml.training.hdet.places import FEW, Channel, check_evidence, deal, value_of, values_of
from ml.training.hdet.state import HdetState, SyncReport

# Shapes: N replicas, F of them fit, C channels.
Probe = Callable[[int], Tensor]
_MOMENTS, _SIZES, _WINDOW, _VALUES = 2, slice(1, 3), slice(3, 6), 6


class Ensemble:
    """Let replicas meet; what is remembered between meetings is the caller's state."""

    def __init__(
        self,
        converger: Converger,
        channels: Sequence[Channel],
        *,
        config: HdetConfig,
        probe: Probe | None,
        envelope: Callable[[int], list[float]],
    ) -> None:
        """Check that a meeting can do what is asked for; nothing is exchanged.

        Args:
            converger: Averages the tensors.
            channels: What differs between the replicas.
            config: Syncs and controller.
            probe: Takes a sync's number, returns the losses of shared examples on this replica.
            envelope: Takes a step, returns the schedule's learning rate of each group.

        Raises:
            ValueError: If the losses cannot tell what shall be steered, or shards would be
                averaged.
        """
        self._converger, self._channels = converger, channels
        self._config, self._probe, self._envelope = config, probe, envelope
        size = converger.collectives.size
        check_evidence(channels, config=config, size=size, has_probe=probe is not None)
        if self.diverges:
            refuse_shards(converger.optimizer)

    def note(self) -> None:
        """Remember which rows of tables the step that was just taken has changed."""
        if self.diverges:
            self._converger.tables.note()

    @property
    def diverges(self) -> bool:
        """Return whether replicas can differ at all."""
        config = self._config
        spreads = any(channel.spreads for channel in self._channels)
        causes = spreads, config.noise_fraction, config.gradient_sync == "local"
        return self._converger.collectives.size > 1 and any(causes)

    def sync(
        self, state: HdetState, learning_rates: Sequence[float], *, healthy: bool
    ) -> SyncReport | None:
        """Compare, converge and steer; None if nothing has changed since the last meeting.

        Whoever is left out takes the others' moments too. Where it has none yet, because it took
        no step so far, the moments of all start afresh.

        Args:
            state: What is remembered; changed.
            learning_rates: Of this replica, in use until now.
            healthy: Whether this replica vouches for what it holds.

        Raises:
            FloatingPointError: If no replica is fit to be averaged.
            ValueError: If the replicas hold different numbers of elements.
        """
        if not self.diverges or state.step == state.last_sync_step:
            return None
        config, converger = self._config, self._converger
        averages = config.gradient_sync == "local" and config.moments == "average"
        converger.pack(with_moments=averages)
        numbers = self._meet(state, learning_rates, healthy=healthy and converger.is_finite())
        fit = self._fit(state, numbers)
        evidence = self._evidence(state, fit, numbers[:, _WINDOW])
        wants = averages or not all(fit)
        complete = bool((numbers[:, _MOMENTS] == numbers[0, _MOMENTS]).all())
        if (wants and complete) != averages:
            converger.pack(with_moments=wants and complete)
        differences = converger.average(fit)
        if not (averages or config.gradient_sync == "shared") or (wants and not complete):
            converger.reset_moments()
        if evidence is not None:
            self._steer(state, weights(evidence, config=config), fit)
        state.met()
        if config.auto_lr:
            deal(state, self._channels, size=converger.collectives.size, seed=config.seed)
        report = _report(
            state,
            fit,
            groups=len(learning_rates),
            differences=differences,
            values_NC=numbers[:, _VALUES:],
        )
        return report if evidence is None else _with_evidence(report, evidence, fit)

    def _meet(self, state: HdetState, learning_rates: Sequence[float], *, healthy: bool) -> Tensor:
        """Return each replica's health, two sizes, three sums of its window, and its values."""
        rank = self._converger.collectives.rank
        others = [channel for channel in self._channels if channel.write is not None]
        values = [value_of(state, channel, rank) for channel in others]
        own = [float(healthy), *self._converger.sizes(), *state.window]
        return self._converger.exchange([*own, *learning_rates, *values])

    def _fit(self, state: HdetState, numbers: Tensor) -> list[bool]:
        """Return which replicas are averaged."""
        fit = fit_replicas(
            numbers[:, 0].bool().tolist(),
            numbers[:, _WINDOW],
            divergence_factor=self._config.divergence_factor,
        )
        if not any(fit):
            raise FloatingPointError(
                f"no replica is fit to be averaged at step {state.step}; go back to the last "
                "checkpoint with a lower learning rate"
            )
        sizes = numbers[torch.tensor(fit), _SIZES]
        if not bool((sizes == sizes[0]).all()):
            raise ValueError(
                f"replicas hold different numbers of elements, {sizes.tolist()}; give every "
                "parameter a gradient on every replica, zero where it has none"
            )
        return fit

    def _evidence(
        self, state: HdetState, fit: Sequence[bool], windows_N3: Tensor
    ) -> Evidence | None:
        """Return the losses of the replicas that are fit, if the controller may look."""
        config, mask = self._config, torch.tensor(fit)
        if not config.auto_lr or state.step < config.auto_warmup_steps:
            return None
        if self._probe is not None:
            losses_NP = self._converger.collectives.gather(self._probe(state.sync)).cpu()
            return probe_evidence(losses_NP[mask]) if sum(fit) > 1 else None
        if sum(fit) < FEW or float(windows_N3[mask, 2].min()) < 2:
            return None
        return window_evidence(windows_N3[mask])

    def _steer(self, state: HdetState, weights_F: Tensor, fit: Sequence[bool]) -> None:
        """Move each channel's multiplier towards the fit replicas that did better."""
        envelope, mask = self._envelope(state.step), torch.tensor(fit)
        for index, channel in enumerate(self._channels):
            config, base = self._config, state.bases[index]
            if channel.write is None:
                scale = envelope[index] * state.cooling
            else:  # the extra decay is the learning rate's
                scale, config = base, replace(config, decay_fraction=0.0)
            multiplier, state.velocities[index] = steer(
                state.multipliers[index],
                state.velocities[index],
                push_of(values_of(state, channel)[mask], weights_F),
                envelope=scale,
                config=config,
            )
            state.multipliers[index] = channel.limited(multiplier, base=base)


def _report(
    state: HdetState,
    fit: Sequence[bool],
    *,
    groups: int,
    differences: tuple[float, float],
    values_NC: Tensor,
) -> SyncReport:
    """Return what happened at the meeting that just ended, without the controller's view."""
    names = state.names[groups:]
    return SyncReport(
        step=state.step,
        difference_before=differences[0],
        difference_after=differences[1],
        learning_rates=values_NC[:, :groups].tolist(),
        multipliers=state.multipliers[:groups],
        losses=[],
        variance_ratio=float("nan"),
        left_out=[rank for rank, is_fit in enumerate(fit) if not is_fit],
        hyper_values=dict(zip(names, values_NC[:, groups:].T.tolist(), strict=True)),
        hyper_multipliers=dict(zip(names, state.multipliers[groups:], strict=True)),
        cooling=state.cooling,
    )


def _with_evidence(report: SyncReport, evidence: Evidence, fit: Sequence[bool]) -> SyncReport:
    """Return the report with what the controller saw."""
    seen = iter(evidence.losses.tolist())
    losses = [next(seen) if is_fit else float("nan") for is_fit in fit]
    return replace(report, losses=losses, variance_ratio=evidence.variance_ratio)
