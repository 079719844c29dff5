"""One training of the training benchmark, under Ray Train or under torchrun, and what it took."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.ray_training import FitPlan, fit
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fit import prepare_folder
from ml.ranking.sequence_ranker.recipes import RankerConfig, recipe
from tests.benchmarks.rankers_data import ACTIONS, feature_spec, item_table, sequences
from tests.benchmarks.rankers_flops import Size, step_flops
from tests.benchmarks.train_child import PLAN_FILE, idle, timed_ranker, timing_file
from tests.benchmarks.train_processes import CpuWatch

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Say what is trained.

    Attributes:
        recipe: Name of a ranker recipe; its batch is that of one worker.
        workers: How many train together.
        cpus: Processors that they share.
        steps: Steps of an epoch.
        epochs: Epochs, from 2: the first is not counted.
        row_events: Events of a sequence, all alike, so that batches are, too.
        batch_events: Events of a worker's batch; None for the recipe's own.
    """

    recipe: str
    workers: int
    cpus: int
    steps: int = 40
    epochs: int = 4
    row_events: int = 64
    batch_events: int | None = None

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If no epoch is left to count.
        """
        if self.epochs < 2 or self.steps < 2:
            raise ValueError("epochs and steps must be at least 2: the first ones are not counted")

    @property
    def threads(self) -> int:
        """Return the processor threads of a worker."""
        return max(1, self.cpus // self.workers)

    @property
    def config(self) -> RankerConfig:
        """Return the recipe, with as many epochs as are asked for and no early end."""
        config = recipe(self.recipe)
        training = replace(config.training, epochs=self.epochs, patience=self.epochs)
        events = self.batch_events or config.batches.events
        return replace(config, training=training, batches=replace(config.batches, events=events))

    @property
    def step_events(self) -> int:
        """Return the events of a step of all workers."""
        rows = self.config.batches.events // self.row_events
        return rows * self.row_events * self.workers

    @property
    def event_flops(self) -> float:
        """Return the operations per event that a step cannot do without."""
        model = self.config.model
        size = Size(
            width=model.width,
            layers=model.layers,
            heads=model.heads,
            head_width=model.head_width,
            num_actions=len(ACTIONS),
        )
        return sum(step_flops(model.scheme, size, events=self.row_events))


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Tell what a training took; steady figures are those of the epochs after the first.

    Attributes:
        step_seconds: Steady wall time of a step.
        step_cpu_seconds: Steady CPU time of a step, of all processes together, Ray's or torchrun's
            own included; with the validation and the checkpoint of each epoch.
        wait_share: Share of the steady steps' time that went by waiting for batches, rank 0.
        first_step_seconds: From the first loss to the second.
        before_function_seconds: From the start of the fit to the function's.
        to_first_step_seconds: From there to the first loss.
        startup_cpu_seconds: CPU time of all processes from the start of the fit to the first loss.
    """

    step_seconds: float
    step_cpu_seconds: float
    wait_share: float
    first_step_seconds: float
    before_function_seconds: float
    to_first_step_seconds: float
    startup_cpu_seconds: float

    @property
    def startup_seconds(self) -> float:
        """Return the time from the start of the fit to the first loss."""
        return self.before_function_seconds + self.to_first_step_seconds


def prepare(load: Load, folder: Path) -> Path:
    """Write the data of a training into a new folder; every epoch has the steps of the load."""
    rows = load.step_events * load.steps // load.row_events
    inputs = RankerInputs(
        train=sequences(rows, events=load.row_events),
        validation=sequences(8 * load.workers, events=load.row_events, split="validation"),
        items=item_table(),
        spec=feature_spec(),
    )
    return prepare_folder(inputs, load.config, folder=folder)


def under_ray(load: Load, prepared: Path, *, folder: Path, name: str) -> Taken:
    """Train on Ray Train, on the instance that runs.

    Args:
        load: What `prepared` holds.
        prepared: A prepared folder; stays as it is.
        folder: Where the training's own folders go.
        name: Of the training.
    """
    data = shutil.copytree(prepared, folder / f"{name}-data")
    plan = FitPlan(name=name, folder=folder, workers=load.workers)
    with CpuWatch() as watch:
        started = time.time()
        fit(timed_ranker, {"data": str(data)}, plan)
    return _read(folder / name, load, started=started, watch=watch)


def idle_cores(workers: int, *, folder: Path, seconds: float) -> float:
    """Return how many cores Ray takes for a training that computes nothing.

    Args:
        workers: How many sleep.
        folder: Where the training's own folder goes.
        seconds: For how long.
    """
    name = "idle"
    with CpuWatch() as watch:
        fit(idle, {"seconds": seconds}, FitPlan(name=name, folder=folder, workers=workers))
    timing = json.loads((folder / name / timing_file(0)).read_text())
    # The first second is left out: the other worker may still be starting.
    began, ended = timing["began"] + 1, timing["ended"]
    return watch.between(began, ended) / (ended - began)


def under_torchrun(load: Load, prepared: Path, *, folder: Path, name: str) -> Taken:
    """Train with the same function in as many processes of torchrun, over gloo.

    Raises:
        RuntimeError: If a process failed.
    """
    data = shutil.copytree(prepared, folder / f"{name}-data")
    own = folder / name
    own.mkdir()
    (own / PLAN_FILE).write_text(json.dumps({"data": str(data), "threads": load.threads}))
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={load.workers}", "-m", timed_ranker.__module__]
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, *command, str(own)],
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Not all descendants: an idle Ray instance beside it is no part of what torchrun costs.
    with CpuWatch(process.pid) as watch:
        _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"torchrun failed: {errors[-2000:]}")
    return _read(own, load, started=started, watch=watch)


def _read(folder: Path, load: Load, *, started: float, watch: CpuWatch) -> Taken:
    """Return what a training took, from what its rank 0 wrote down."""
    timing = json.loads((folder / timing_file(0)).read_text())
    return taken(timing, load=load, started=started, watch=watch)


def taken(timing: dict[str, Any], *, load: Load, started: float, watch: CpuWatch) -> Taken:
    """Return what a training took.

    Args:
        timing: What `timed_ranker` wrote on rank 0.
        load: What was trained.
        started: When the fit was asked for.
        watch: What its processes used.
    """
    losses, ends, steady = timing["losses"], timing["ends"], timing["history"][1:]
    seconds = sum(epoch["train_seconds"] for epoch in steady)
    steps = (load.epochs - 1) * load.steps
    return Taken(
        step_seconds=seconds / steps,
        step_cpu_seconds=watch.between(ends[0], ends[-1]) / steps,
        wait_share=sum(epoch["data_wait_seconds"] for epoch in steady) / seconds,
        first_step_seconds=losses[1] - losses[0],
        before_function_seconds=timing["started"] - started,
        to_first_step_seconds=losses[0] - timing["started"],
        startup_cpu_seconds=watch.between(started, losses[0]),
    )
