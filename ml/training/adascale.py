"""AdaScale SGD: the learning-rate schedule of one base batch per step, followed at any scale S.

One step averages S base batches over accumulation and replicas. Its learning rate is the
gain r in [1, S] times the schedule's, and it counts as r steps of the schedule; training is over
when the schedule's steps are spent, after between total_steps / S and total_steps iterations.

    adascale = AdaScale(optimizer, schedule, total_steps=1000, batches_per_step=4)
    while not adascale.is_over:
        adascale.begin_step()
        for batch in own_base_batches():
            adascale.note_batch(its_mean_gradients)
        adascale.step(gradients_averaged_over_all_base_batches)

Both gradients are taken after undoing any loss scaling, but before clipping: clip `.grad`, which
the optimiser reads, and hand the unclipped mean over. Weight decay is no part of the statistics:
`DecoupledSGD` and torch's SGD both see to it inside their own step, not in the gradients seen here.
A base batch is always of the same size, and the mean over batches is a plain one. Layers with batch
statistics must take them per base batch. Momentum stays as it is.

Not known: whether the gain is still right where a few examples carry most of a batch's weight.

Source: adascale 6.1 and 6.4 (Johnson, Agrawal, Gu, Guestrin, "AdaScale SGD", 2020).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from ml.training.collectives import Collectives, SingleReplica
from ml.training.gain_ratio import AdaScaleConfig, GainRatio
from ml.training.norms import square_norm

Schedule = Callable[[int], Sequence[float]]
_STATE = ("tau", "iterations", "batches_per_step", "gain")


def check_adascale(optimizer: Optimizer, *, hdet: bool, sharded: bool) -> None:
    """Refuse what AdaScale is not defined for.

    Args:
        optimizer: The optimiser that would be driven.
        hdet: Whether HDET drives the learning rates or makes the replicas differ.
        sharded: Whether parameters are split over the replicas. Parameters of FSDP are recognised
            by themselves, unless FSDP hides its flat ones behind the original parameters.

    Raises:
        ValueError: If one of the three stands in the way; it names the remedy.
    """
    if not isinstance(optimizer, SGD):
        raise ValueError(
            f"AdaScale scales the steps of torch.optim.SGD, not of {type(optimizer).__name__}, "
            "which rescales the gradient itself; train with SGD (momentum and weight decay are "
            "fine) or without AdaScale"
        )
    if hdet:
        raise ValueError(
            "AdaScale and HDET cannot both drive the learning rate, and AdaScale needs equal "
            "replicas; switch HDET off (spread_fraction=0, noise_fraction=0, auto_lr=False, "
            "gradient_sync='shared') or train without AdaScale"
        )
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    if sharded or _any_sharded(parameters):
        raise ValueError(
            "AdaScale needs the norms of whole gradients, and a replica with sharded parameters "
            "sees parts of them; replicate the parameters (no FSDP, no sharded tables) or train "
            "without AdaScale"
        )


@dataclass(eq=False, repr=False, slots=True)
class AdaScale:
    """Drive SGD's learning rates on one replica; see the module.

    Attributes:
        optimizer: A torch.optim.SGD whose learning rates nothing else changes.
        schedule: Takes a step of the schedule, from 0 to total_steps - 1, and returns the
            learning rate of every parameter group, as it would be at one base batch per step.
        total_steps: Steps of the schedule.
        batches_per_step: Base batches averaged per iteration over all replicas (S).
        config: Averaging of the gain's statistics.
        collectives: How to reach the other replicas.
        gain: Estimator of the gain.
        tau: Steps of the schedule done so far, a fraction.
        iterations: Optimiser steps so far.
    """

    optimizer: Optimizer
    schedule: Schedule
    _: KW_ONLY
    total_steps: int
    batches_per_step: int
    config: AdaScaleConfig = field(default_factory=AdaScaleConfig)
    collectives: Collectives = field(default_factory=SingleReplica)
    gain: GainRatio = field(init=False)
    tau: float = field(init=False, default=0.0)
    iterations: int = field(init=False, default=0)
    _noted: int = field(init=False, default=0)
    _square_norms: list[Tensor] = field(init=False, default_factory=list)
    _rates: list[float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check what is driven; nothing is exchanged or changed yet.

        Raises:
            ValueError: If the optimiser or its parameters do not fit, or a number is out of range.
        """
        check_adascale(self.optimizer, hdet=False, sharded=False)
        if self.total_steps < 1:
            raise ValueError(f"total_steps is {self.total_steps}; give at least 1")
        self.set_batches_per_step(self.batches_per_step)
        self.gain = GainRatio(self.config)

    @property
    def is_over(self) -> bool:
        """Return whether the schedule's steps are spent."""
        return self.tau >= self.total_steps

    def set_batches_per_step(self, batches_per_step: int) -> None:
        """Go on with another number of base batches per step, such as after losing a replica.

        The statistics are of one base batch and stay as they are.

        Raises:
            ValueError: If it is below 1.
        """
        if batches_per_step < 1:
            raise ValueError(f"batches_per_step is {batches_per_step}; give at least 1")
        self.batches_per_step = batches_per_step

    def begin_step(self) -> None:
        """Forget what was noted of a step that was not taken.

        Raises:
            ValueError: If something else has changed a learning rate since the last step.
        """
        self._noted = 0
        self._square_norms.clear()
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self._rates is not None and rates != self._rates:
            raise ValueError(
                f"the learning rates {self._rates} set by AdaScale are now {rates}; remove the "
                "other scheduler (HDETScheduler or torch's) from this optimizer, or AdaScale"
            )

    def note_batch(self, gradients: Iterable[Tensor]) -> None:
        """Take in one local base batch: the gradients of its mean loss, as backward left them.

        Args:
            gradients: Of all parameters, before any all-reduce and clipping; not kept.
        """
        self._noted += 1
        if self._needs_statistics:
            self._square_norms.append(square_norm(gradients))

    def step(self, mean_gradients: Sequence[Tensor]) -> float:
        """Set the learning rates, take the optimiser's step and return its gain.

        Args:
            mean_gradients: Plain mean over the base batches of all replicas, equal on all of
                them, before clipping. The optimiser itself reads the parameters' `.grad`.

        Returns:
            The gain r, in [1, batches_per_step], bit-equal on all replicas.

        Raises:
            FloatingPointError: If a squared norm is infinite or not a number (not looked at where
                batches_per_step is 1); no step is taken.
            ValueError: If the schedule is over or has other groups, or the batches noted on all
                replicas are not batches_per_step, or the mean cannot be theirs; no step is taken.
        """
        if self.is_over:
            raise ValueError(f"the schedule of {self.total_steps} steps is over; end the training")
        rates = self._scheduled_rates()
        gain = self._measure(mean_gradients)
        self._rates = [gain * rate for rate in rates]
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.tau += gain
        self.iterations += 1
        self._noted = 0
        self._square_norms.clear()
        return gain

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain values for JSON; save it between steps."""
        return {
            "tau": self.tau,
            "iterations": self.iterations,
            "batches_per_step": self.batches_per_step,
            "gain": self.gain.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, batches_per_step included; the optimiser's state is separate.

        After a restart at another scale, call `set_batches_per_step` next.

        Raises:
            ValueError: If it is not a state of this class.
        """
        if set(state_dict) != set(_STATE):
            raise ValueError(
                f"AdaScale's state holds {list(_STATE)}, this one {sorted(state_dict)}; continue "
                "from a checkpoint that was trained with AdaScale or start in an empty folder"
            )
        self.gain.load_state_dict(state_dict["gain"])
        self.set_batches_per_step(state_dict["batches_per_step"])
        self.tau, self.iterations = state_dict["tau"], state_dict["iterations"]
        self._rates = None
        self._noted = 0
        self._square_norms.clear()

    @property
    def _needs_statistics(self) -> bool:
        """Return whether a step averages anything."""
        return self.batches_per_step > 1 or self.collectives.size > 1

    def _measure(self, mean_gradients: Sequence[Tensor]) -> float:
        """Exchange the norms of this step and return its gain."""
        if not self._needs_statistics:
            self._check_count(self._noted)
            return 1.0
        mean_square = square_norm(mean_gradients)
        device = mean_square.device
        squares = sum((s.to(device) for s in self._square_norms), torch.zeros_like(mean_square))
        # One replica's norm of the mean counts for all, so that no rounding can set them apart.
        own = mean_square if self.collectives.rank == 0 else torch.zeros_like(mean_square)
        message = torch.stack([squares, own, torch.full_like(own, self._noted)])
        sum_of_squares, square_of_mean, noted = self.collectives.sum(message).tolist()
        self._check_count(int(noted))
        return self.gain.update(sum_of_squares, square_of_mean, self.batches_per_step)

    def _check_count(self, noted: int) -> None:
        """Refuse a step of another number of base batches."""
        if noted != self.batches_per_step:
            raise ValueError(
                f"{noted} base batches were noted over {self.collectives.size} replicas, but "
                f"batches_per_step is {self.batches_per_step}; call note_batch for each, and "
                f"set_batches_per_step({noted}) if the scale has changed"
            )

    def _scheduled_rates(self) -> list[float]:
        """Return the schedule's learning rate of each parameter group at this step."""
        rates, num_groups = list(self.schedule(int(self.tau))), len(self.optimizer.param_groups)
        if len(rates) != num_groups:
            raise ValueError(
                f"the schedule returns {len(rates)} learning rates for {num_groups} parameter "
                "groups; return one for each"
            )
        return rates


def _any_sharded(parameters: Iterable[Tensor]) -> bool:
    """Return whether a parameter belongs to FSDP or is distributed in another way."""
    # Imported here because it takes up to a second, which only AdaScale should wait for.
    from torch.distributed.fsdp import FlatParameter
    from torch.distributed.tensor import DTensor

    return any(
        isinstance(p, DTensor | FlatParameter) or getattr(p, "row_shards", 1) > 1
        for p in parameters
    )
