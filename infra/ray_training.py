"""Trainings on Ray Train: a function of (config, context), run by several workers to its end.

Only this module, the trainer, its process group, the worker loop and what tells failures apart
know Ray Train. Does not know what is trained. A worker that dies costs the steps since the last
checkpoint, also while it starts: the others end with it, and all start again from there; an error
of the function itself ends the training at once.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.cluster import ray_instance
from infra.errors import UserError
from infra.places import NoPlaceError, run_placed
from infra.training_log import ProgressLog, TrainingRecord, read_record
from infra.worker_failures import root_cause
from infra.worker_size import check_room, worker_resources

_PLACEMENT_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
# Ray counts a node that has just died for some seconds more, and asks too much of the others: an
# elastic training asks again and again, until its workers have had no place for too long.
_ELASTIC_TRIES = 4
_UNLIMITED = -1
_AGAIN = "run it again: it goes on from its newest checkpoint"
# What Ray Train's controller may need until it asks for the first place: a process and imports.
_GRACE_SECONDS = 15.0
_log = logging.getLogger(__name__)

TrainFunction = Callable[[Mapping[str, Any], Any], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitPlan:
    """Say where a training goes, on how many workers, and what it outlives.

    Attributes:
        name: Name of the training.
        folder: Where the training's folder `name` goes; an older one is replaced.
        workers: How many, at most; each joins one process group.
        least_workers: With how many it goes on when the others cannot be placed; None for all.
        restarts: How often it goes on after workers died.
        resize_seconds: How often it looks whether more workers can be placed again.
    """

    name: str
    folder: Path
    workers: int = 1
    least_workers: int | None = None
    restarts: int = 3
    resize_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        least = self.workers if self.least_workers is None else self.least_workers
        if not 1 <= least <= self.workers:
            raise ValueError(f"least_workers must be between 1 and workers, got {least}")
        if self.restarts < 0 or self.resize_seconds <= 0:
            raise ValueError("restarts must be at least 0 and resize_seconds above 0")

    @property
    def is_elastic(self) -> bool:
        """Return whether the training may go on with fewer workers."""
        return self.least_workers is not None and self.least_workers < self.workers

    @property
    def needed_workers(self) -> int:
        """Return how many workers must be placed."""
        return self.workers if self.least_workers is None else self.least_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """Tell what a training left behind.

    Attributes:
        metrics: Of the checkpoint that the function kept; without one, what was reported last.
        checkpoint: Folder that the function kept, else the last one reported; None if none.
        history: Metrics of every epoch, oldest first; without kept ones, what rank 0 reported.
        seconds: Wall time of this call of `fit`, the last leg of a training that was resumed.
        startup_seconds: The part of it before the first worker's function began.
        starts: How often the workers started in it: 1, and 1 more for each time they were replaced.
    """

    metrics: dict[str, Any]
    checkpoint: Path | None
    history: list[dict[str, Any]]
    seconds: float
    startup_seconds: float
    starts: int


def fit(train_fn: TrainFunction, config: Mapping[str, Any], plan: FitPlan) -> FitResult:
    """Run a training function on several workers and wait for its end.

    Args:
        train_fn: Importable function that every worker calls with the config and its
            `infra.worker_loop.WorkerContext`; called again, it goes on from its own checkpoints.
        config: Passed to every worker.
        plan: Where, on how many, and how often again.

    Returns:
        The best or last checkpoint with its metrics, the history and the times.

    Raises:
        UserError: If the workers cannot be placed, at the start or after a loss, if one fails or
            died too often, if Ray's head or Ray Train's controller ends, or if the training's
            records cannot be read.
    """
    started = time.time()
    resources = worker_resources(ray_instance(), workers=plan.workers)
    check_room(resources, name=plan.name, workers=plan.needed_workers)
    run_folder = plan.folder / plan.name
    shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True)
    with ProgressLog(run_folder, name=plan.name):
        run_plan(lambda: _run_training(train_fn, config, plan, resources), plan, resources)
    record = read_record(run_folder)
    return FitResult(
        metrics=record.metrics,
        checkpoint=record.checkpoint,
        history=record.history,
        seconds=time.time() - started,
        startup_seconds=_first_start(record, plan.name) - started,
        starts=len(record.starts),
    )


def _first_start(record: TrainingRecord, name: str) -> float:
    if not record.starts:
        raise UserError(
            f"training {name} ended without a record of its start",
            remedy="keep the data home on storage that all of Ray's nodes share",
        )
    return record.starts[0]


def run_plan(run: Callable[[], None], plan: FitPlan, resources: Mapping[str, float]) -> None:
    """Run a training, and stop to wait where nothing would ever answer.

    Args:
        run: The whole of it.
        plan: What it is called, and whether Ray waits for ever for its workers' place.
        resources: What each worker takes.

    Raises:
        UserError: If Ray's head or Ray Train's controller ended, or no worker had a place in time.
    """
    from ray.exceptions import RayError

    name = f"training {plan.name}"
    # Ray itself gives up on a fixed number of workers, but waits for ever for an elastic one.
    limit = ray_instance().placement_timeout_seconds + _GRACE_SECONDS if plan.is_elastic else None
    try:
        run_placed(run, name=name, remedy=_AGAIN, limit_seconds=limit)
    except NoPlaceError as error:
        raise _no_place(plan.name, resources) from error
    except RayError as error:
        report = _report(error, plan.folder / plan.name)
        problem = f"{name}: Ray Train's controller ended ({type(error).__name__}, see {report})"
        raise UserError(problem, remedy=_AGAIN) from error


def _run_training(
    train_fn: TrainFunction,
    config: Mapping[str, Any],
    plan: FitPlan,
    resources: dict[str, float],
) -> None:
    from ray import train
    from ray.train.v2.api.exceptions import TrainingFailedError

    from infra.lean_trainer import LeanTorchTrainer
    from infra.worker_loop import worker_loop

    cluster, run_folder = ray_instance(), plan.folder / plan.name
    tries = _ELASTIC_TRIES if plan.is_elastic else 1
    os.environ[_PLACEMENT_VARIABLE] = str(cluster.placement_timeout_seconds / tries)
    workers = (plan.needed_workers, plan.workers) if plan.is_elastic else plan.workers
    trainer = LeanTorchTrainer(
        worker_loop(
            train_fn,
            dict(config),
            folder=run_folder.resolve(),
            most_workers=plan.workers,
            threads=int(cluster.cpus_per_worker or 0),
        ),
        scaling_config=train.ScalingConfig(
            num_workers=workers,
            resources_per_worker=resources,
            use_gpu="GPU" in resources,
            # Ray would put all on one node as long as they fit.
            placement_strategy="PACK" if cluster.address is None else "SPREAD",
            elastic_resize_monitor_interval_s=plan.resize_seconds,
        ),
        run_config=train.RunConfig(
            name=run_folder.name,
            storage_path=str(run_folder.parent.resolve()),
            failure_config=train.FailureConfig(
                max_failures=plan.restarts,
                controller_failure_limit=_UNLIMITED if plan.is_elastic else 0,
            ),
        ),
        may_grow=cluster.address is not None,
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _failure(error, run_folder, resources) from error


def _report(error: Exception, run_folder: Path) -> Path:
    """Write an error's whole text into the training's folder; return the file."""
    report = run_folder / "failure.txt"
    report.write_text(str(error), encoding="utf-8")
    return report


def _failure(error: Exception, run_folder: Path, resources: Mapping[str, float]) -> UserError:
    report = _report(error, run_folder)
    if "Timeout" in type(getattr(error, "controller_failure", None)).__name__:
        return _no_place(run_folder.name, resources)
    return UserError(
        f"training {run_folder.name} failed: {root_cause(error)}",
        remedy=f"the whole traceback is in {report}",
    )


def _no_place(name: str, resources: Mapping[str, float]) -> UserError:
    what = "processor and accelerator" if "GPU" in resources else "processor"
    return UserError(
        f"training {name}: its workers found no free {what} in time",
        remedy="wait for the other trainings to end, or set RANKLAKE_WORKERS lower",
    )
