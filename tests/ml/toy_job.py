"""A training of seconds: a small network on made-up rows, on one replica or on threads."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ml.training.collectives import SingleReplica
from ml.training.config import TrainConfig
from ml.training.hdet.controller import HdetConfig
from ml.training.job import TrainJob, TrainResult
from ml.training.loop import train
from tests.ml.replica_threads import ThreadReplicas

NO_HDET = HdetConfig(spread_fraction=0.0, auto_lr=False)
CONFIG = TrainConfig(
    epochs=3, learning_rate=0.05, patience=9, monitor="loss", precision="float32", hdet=NO_HDET
)
EPOCH = 6
_GLOBAL_GENERATOR = threading.Lock()


class KilledError(Exception):
    """Stand for a process that ends between two steps."""


def killed_at(job: TrainJob, step: int) -> TrainJob:
    """Return the job, of one batch a step, of a process that ends when it reads a step's batch."""

    def epoch(number: int) -> Iterator[Any]:
        for place, batch in enumerate(job.epoch(number)):
            if number * job.steps_per_epoch + place == step:
                raise KilledError
            yield batch

    return replace(job, epoch=epoch)


def examples() -> Tensor:
    """Return three epochs of batches of eight rows, [3 x EPOCH, 8, 5]; the last is the label."""
    return torch.randn(EPOCH * 3, 8, 5, generator=torch.Generator().manual_seed(0))


def squared_errors(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss and its weight."""
    errors = (model(rows[:, :4])[:, 0] - rows[:, 4]) ** 2
    return errors.sum(), torch.tensor(float(len(rows)))


def network() -> nn.Sequential:
    """Return the same small network with dropout each time."""
    # Replicas are threads here, and the global generator is theirs together.
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))


def without_dropout() -> nn.Module:
    """Return the small network for replicas that are threads and share dropout's generator."""
    model = network()
    model[2] = nn.Identity()
    return model


def toy_job(folder: Path, replicas: ThreadReplicas | SingleReplica, **changes: Any) -> TrainJob:
    """Return the job of one replica, which gets its share of every batch's rows."""
    batches = examples()

    def epoch(number: int) -> list[Tensor]:
        share = 8 // replicas.size
        own = slice(replicas.rank * share, (replicas.rank + 1) * share)
        return [rows[own] for rows in batches[number * EPOCH : (number + 1) * EPOCH]]

    def validate(model: nn.Module) -> dict[str, float]:
        loss, weight = squared_errors(model, batches.flatten(0, 1))
        return {"loss": float(loss / weight)}

    def probe(model: nn.Module, sync: int) -> Tensor:
        rows = batches[sync]
        return (model(rows[:, :4])[:, 0] - rows[:, 4]) ** 2

    job = TrainJob(
        epoch=epoch,
        steps_per_epoch=EPOCH,
        loss=squared_errors,
        validate=validate,
        folder=folder,
        probe=probe,
        collectives=replicas,
    )
    return replace(job, **changes)


def run_training(model: nn.Module, job: TrainJob, config: TrainConfig) -> TrainResult:
    """Train where nobody listens."""
    return train(model, job, config, report=lambda *_: None, prepare=lambda m: m)


def weights_of(model: nn.Module) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
