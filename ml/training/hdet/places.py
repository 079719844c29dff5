"""Channels: whatever differs between replicas, and who holds which place of its spread.

Every parameter group's learning rate is a channel, and so is every diverse hyper-parameter. The
value of a replica is base x multiplier x factor of the place that it holds, within the channel's
limits. A learning rate's base is 1: its channel is a factor on the envelope.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ml.training.hdet.config import LEARNING_RATE, HdetConfig
from ml.training.hdet.controller import permutation, spread
from ml.training.hdet.hyper_parameters import HyperParameter
from ml.training.hdet.state import HdetState

# Shapes: N replicas, or as many places.
# Streams of hyper-parameters begin here, so that more parameter groups do not change them.
_FIRST_STREAM = 1 << 31
# Replicas from which on training losses may steer without a probe (hdet 2.4).
FEW = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """Describe one value that differs between replicas.

    Attributes:
        name: Its name.
        number: Its place among the channels.
        stream: Number of its own stream of permutations.
        factors: Factor of each place, [N].
        base: Value before anything is learned.
        lowest: Lower limit of the value.
        highest: Upper limit.
        write: Makes a value hold on this replica; None for learning rates.
        only_while_training: Whether it acts while training only.
    """

    name: str
    number: int
    stream: int
    factors: tuple[float, ...]
    base: float = 1.0
    lowest: float = 0.0
    highest: float = math.inf
    write: Callable[[float], None] | None = None
    only_while_training: bool = False

    @property
    def spreads(self) -> bool:
        """Return whether replicas have different values."""
        return len(set(self.factors)) > 1

    def clamped(self, value: float) -> float:
        """Return a value within the limits."""
        return min(max(value, self.lowest), self.highest)

    def limited(self, multiplier: float, *, base: float) -> float:
        """Return a multiplier that keeps the mean value within the limits."""
        return min(max(multiplier, self.lowest / base), self.highest / base)


def channels_of(
    num_groups: int,
    hyper_parameters: Mapping[str, HyperParameter],
    *,
    size: int,
    config: HdetConfig,
) -> list[Channel]:
    """Return the channels: the groups' learning rates, then what else is diverse, by name.

    Raises:
        ValueError: If a diverse name is unknown.
    """
    known = {LEARNING_RATE, *hyper_parameters}
    if unknown := [name for name in config.diverse if name not in known]:
        raise ValueError(f"no hyper-parameter {unknown[0]!r} to vary; known are {sorted(known)}")
    fraction = config.spread_fraction if LEARNING_RATE in config.diverse else 0.0
    factors = tuple(spread(size, fraction=fraction).tolist())
    channels = [
        Channel(name=f"{LEARNING_RATE}.{group}", number=group, stream=group, factors=factors)
        for group in range(num_groups)
    ]
    for name in config.diverse:
        if name != LEARNING_RATE:
            knob = hyper_parameters[name]
            channels.append(_channel(knob, number=len(channels), size=size))
    return channels


def _channel(knob: HyperParameter, *, number: int, size: int) -> Channel:
    """Return a hyper-parameter's channel."""
    return Channel(
        name=knob.name,
        number=number,
        stream=_FIRST_STREAM + zlib.crc32(knob.name.encode()),
        factors=tuple(spread(size, fraction=knob.spread_fraction).tolist()),
        base=knob.start(),
        lowest=knob.lowest,
        highest=knob.highest,
        write=knob.set,
        only_while_training=knob.only_while_training,
    )


def check_evidence(
    channels: Sequence[Channel], *, config: HdetConfig, size: int, has_probe: bool
) -> None:
    """Check that the losses can tell whose value was better, if they shall steer.

    Raises:
        ValueError: If they cannot.
    """
    if not config.auto_lr or size == 1:
        return
    if size < FEW and not has_probe:
        raise ValueError(
            "auto_lr with fewer than four replicas needs a probe: so few training losses are "
            "noise; give one, or set auto_lr=False"
        )
    hidden = [channel.name for channel in channels if channel.only_while_training]
    if hidden and not has_probe:
        raise ValueError(
            f"training losses do not compare replicas of different {hidden}; steering needs a "
            "probe in evaluation mode, without smoothing; give one, or set auto_lr=False"
        )
    if hidden and config.gradient_sync == "shared":
        raise ValueError(
            f"{hidden} act through the gradients, which shared mode averages, so no loss can "
            "tell whose value was better; set gradient_sync='local', or auto_lr=False"
        )


def first_state(channels: Sequence[Channel], *, step: int, size: int, seed: int) -> HdetState:
    """Return a state in which nothing is learned.

    Learning rates begin in the replicas' order, as published; other values are dealt, so that
    the replica of the lowest learning rate is not the lowest in everything.
    """
    return HdetState(
        step=step,
        last_sync_step=step,
        sync=0,
        names=[channel.name for channel in channels],
        bases=[channel.base for channel in channels],
        multipliers=[1.0] * len(channels),
        velocities=[0.0] * len(channels),
        places=[
            list(range(size))
            if channel.write is None
            else permutation(size, seed=seed, sync=0, group=channel.stream)
            for channel in channels
        ],
        window=[0.0, 0.0, 0.0],
    )


def deal(state: HdetState, channels: Sequence[Channel], *, size: int, seed: int) -> None:
    """Give every channel new places, the same on all replicas."""
    state.places = [
        permutation(size, seed=seed, sync=state.sync, group=channel.stream) for channel in channels
    ]


def value_of(state: HdetState, channel: Channel, rank: int) -> float:
    """Return the value of a replica."""
    factor = channel.factors[state.places[channel.number][rank]]
    return channel.clamped(_mean(state, channel) * factor)


def values_of(state: HdetState, channel: Channel) -> Tensor:
    """Return the value of each replica, float64 [N]."""
    ranks = range(len(channel.factors))
    return torch.tensor([value_of(state, channel, r) for r in ranks], dtype=torch.float64)


def mean_value(state: HdetState, channel: Channel) -> float:
    """Return the value at the middle of the spread, which is where replicas meet."""
    return channel.clamped(_mean(state, channel))


def _mean(state: HdetState, channel: Channel) -> float:
    """Return base x multiplier."""
    return state.bases[channel.number] * state.multipliers[channel.number]
