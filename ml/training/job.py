"""What a training is made of: its data, its loss, its folder, and what comes back."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ml.training.collectives import Collectives, SingleReplica
from ml.training.config import TrainConfig
from ml.training.hdet.state import SyncReport

Report = Callable[[dict[str, float], Path | None], None]
Prepare = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """Hold what is trained on, and where it goes.

    Attributes:
        epoch: Takes an epoch's number, returns this replica's batches, the same ones each time;
            None stands for a batch that another replica has instead.
        steps_per_epoch: Steps per epoch, equal on all replicas and in all epochs.
        loss: Takes model and batch, returns summed loss and the weight it is summed over.
        validate: Takes the model, returns metrics, equal on all replicas.
        folder: Where checkpoints go; the newest one there is continued from.
        batches_per_step: Batches of this replica whose gradients make one step, None included.
        shared_batches: Batches of a step over all replicas; every replica's together by default.
        probe: Takes model and sync number, returns losses of examples shared by the replicas.
        collectives: How to reach the other replicas.
        texts: Files to keep beside the weights, such as configs in JSON.
    """

    epoch: Callable[[int], Iterable[Any]]
    steps_per_epoch: int
    loss: Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
    validate: Callable[[nn.Module], dict[str, float]]
    folder: Path
    batches_per_step: int = 1
    shared_batches: int | None = None
    probe: Callable[[nn.Module, int], Tensor] | None = None
    collectives: Collectives = field(default_factory=SingleReplica)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Tell how a training went.

    Attributes:
        best: Metrics of the best epoch.
        checkpoint: Folder of the best epoch that is on replica 0's disk.
        history: Metrics of every epoch, oldest first.
        syncs: Every meeting of the replicas, oldest first.
    """

    best: dict[str, float]
    checkpoint: Path
    history: list[dict[str, float]]
    syncs: list[SyncReport]


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Say what a runner wants of a training beside its reports.

    Attributes:
        step_batches: Batches of a step over all replicas, so that any number of replicas takes
            the same steps; None for one of each replica.
        checkpoints_per_epoch: About how many there shall be of an epoch, where the configuration
            leaves it open; None for one at its end.
        change: Takes the job and returns the one to train, for runners that watch it.
    """

    step_batches: int | None = None
    checkpoints_per_epoch: int | None = None
    change: Callable[[TrainJob], TrainJob] = lambda job: job

    def training(self, config: TrainConfig, *, steps_per_epoch: int) -> TrainConfig:
        """Return a configuration with as many checkpoints as are wanted."""
        if self.checkpoints_per_epoch is None or config.checkpoints.steps is not None:
            return config
        steps = max(1, steps_per_epoch // self.checkpoints_per_epoch)
        return replace(config, checkpoints=replace(config.checkpoints, steps=steps))


PLAIN_LAUNCH = Launch()
