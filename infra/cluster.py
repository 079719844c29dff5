"""Ray: one local instance per process, and trainings on it through Ray Train.

The callers hand over a function of (config, context); nothing outside this module, the trainer
and the worker loop imports Ray. Does not know what is trained.
"""

import atexit
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.training_log import ProgressLog, read_history, root_cause

# Ray's sockets live under this folder, and a Unix socket's path has at most 107 characters.
_LONGEST_TEMP_DIR = 30
_DECLARED_SLACK = 1e-6
_START_ATTEMPTS = 3
_START_REMEDY = "try again when the machine is less busy, and check the space in /tmp and /dev/shm"
_FLAGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less; there is nothing to preempt
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the controller notices the end this much later
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # 15 by default: a training would yield to everything else
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """Say how much of the machine Ray may use, and how long a training may wait for a place.

    Attributes:
        cpus: Processors that Ray counts with.
        cpus_per_worker: What a worker takes of them; a fraction lets workers share one.
        object_store_bytes: Size of Ray's shared memory; trainings read from disk.
        placement_timeout_seconds: How long to wait for busy processors.
    """

    cpus: int = 2
    cpus_per_worker: float = 0.25
    object_store_bytes: int = 256 * 2**20
    placement_timeout_seconds: float = 40.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.cpus < 1 or not 0 < self.cpus_per_worker <= self.cpus:
            raise ValueError("cpus must be at least 1 and cpus_per_worker in (0, cpus]")
        if self.placement_timeout_seconds <= 0:
            raise ValueError("placement_timeout_seconds must be above 0")

    @property
    def most_workers(self) -> int:
        """Return how many workers can be placed at once."""
        return int(self.cpus / self.cpus_per_worker + _DECLARED_SLACK)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """Tell what a training left behind.

    Attributes:
        metrics: What was reported with the last checkpoint, or last if there was none.
        checkpoint: Folder of the last reported checkpoint; None if none was reported.
        history: Everything that rank 0 reported, oldest first.
        seconds: Wall time of the whole training.
        startup_seconds: The part of it before the first worker's function began.
    """

    metrics: dict[str, Any]
    checkpoint: Path | None
    history: list[dict[str, Any]]
    seconds: float
    startup_seconds: float


class _Instance:
    """Hold what belongs to the running Ray instance."""

    config: ClusterConfig | None = None
    folder: Path | None = None


def ray_instance(config: ClusterConfig | None = None) -> ClusterConfig:
    """Start Ray on this machine unless this process has done so; it stops at exit.

    Args:
        config: What Ray may use; ignored when an instance runs already.

    Returns:
        The running instance's configuration.
    """
    if _Instance.config is not None:
        return _Instance.config
    config = config or ClusterConfig()
    os.environ.update(_FLAGS)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(24))
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.placement_timeout_seconds)
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            _start(config)
            break
        except Exception as error:  # Ray raises a bare Exception when a busy machine is slow
            _log.warning("Ray did not start (attempt %d of %d)", attempt, _START_ATTEMPTS)
            _clear()
            if attempt == _START_ATTEMPTS:
                raise UserError(f"Ray did not start: {error}", remedy=_START_REMEDY) from error
    _Instance.config = config
    atexit.register(stop_ray)
    return config


def _start(config: ClusterConfig) -> None:
    import ray

    _Instance.folder = _short_folder()
    ray.init(
        num_cpus=config.cpus,
        include_dashboard=False,
        object_store_memory=config.object_store_bytes,
        _temp_dir=str(_Instance.folder),
        _node_ip_address="127.0.0.1",
        _system_config={"prestart_worker_first_driver": False},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def stop_ray() -> None:
    """Stop this process's Ray instance, if there is one, and remove its folder."""
    if _Instance.config is not None:
        _clear()
        atexit.unregister(stop_ray)


def _clear() -> None:
    import ray

    ray.shutdown()
    if _Instance.folder is not None:
        shutil.rmtree(_Instance.folder, ignore_errors=True)
    _Instance.config = _Instance.folder = None


def fit(
    train_fn: Callable[[Mapping[str, Any], Any], None],
    config: Mapping[str, Any],
    *,
    workers: int,
    folder: Path,
    name: str,
) -> FitResult:
    """Run a training function on several workers and wait for its end.

    Args:
        train_fn: Importable function that every worker calls with the config and its
            `infra.worker_loop.WorkerContext`.
        config: Passed to every worker.
        workers: How many; each joins one gloo process group.
        folder: Where the training's folder `name` goes; an older one is replaced.
        name: Name of the training.

    Returns:
        The last checkpoint with its metrics, the history and the times.

    Raises:
        UserError: If the workers cannot be placed, or if one fails.
    """
    started = time.time()
    cluster = ray_instance()
    _check_room(name, workers, cluster)
    run_folder = folder / name
    shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True)
    with ProgressLog(run_folder, name=name), _kept_signal_handlers():
        checkpoint = _run_training(train_fn, config, workers=workers, run_folder=run_folder)
    first_step, history = read_history(run_folder)
    with_checkpoint = [entry for entry in history if entry.pop("_has_checkpoint")]
    return FitResult(
        metrics=(with_checkpoint or history or [{}])[-1],
        checkpoint=checkpoint,
        history=history,
        seconds=time.time() - started,
        startup_seconds=first_step - started,
    )


def _run_training(
    train_fn: Callable[[Mapping[str, Any], Any], None],
    config: Mapping[str, Any],
    *,
    workers: int,
    run_folder: Path,
) -> Path | None:
    from ray import train
    from ray.train.v2.api.exceptions import TrainingFailedError

    from infra.lean_trainer import LeanTorchTrainer
    from infra.worker_loop import worker_loop

    cluster = ray_instance()
    trainer = LeanTorchTrainer(
        worker_loop(
            train_fn, dict(config), folder=run_folder, threads=max(1, cluster.cpus // workers)
        ),
        scaling_config=train.ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": cluster.cpus_per_worker}
        ),
        run_config=train.RunConfig(
            name=run_folder.name,
            storage_path=str(run_folder.parent.resolve()),
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=0),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise _failure(error, run_folder) from error
    return Path(result.checkpoint.path) if result.checkpoint else None


def _failure(error: Exception, run_folder: Path) -> UserError:
    report = run_folder / "failure.txt"
    report.write_text(str(error), encoding="utf-8")
    if "Timeout" in type(getattr(error, "controller_failure", None)).__name__:
        return UserError(
            f"training {run_folder.name}: its workers found no free processor in time",
            remedy="wait for the other trainings to end, or set RANKLAKE_WORKERS lower",
        )
    return UserError(
        f"training {run_folder.name} failed: {root_cause(error)}",
        remedy=f"the whole traceback is in {report}",
    )


def _check_room(name: str, workers: int, cluster: ClusterConfig) -> None:
    if workers < 1:
        raise UserError(f"training {name} asks for {workers} workers", remedy="set at least 1")
    if workers > cluster.most_workers:
        raise UserError(
            f"training {name} asks for {workers} workers, and at most {cluster.most_workers} can "
            f"be placed ({cluster.cpus_per_worker} CPU each, {cluster.cpus} CPUs declared)",
            remedy="set RANKLAKE_WORKERS lower or RANKLAKE_THREADS higher",
        )


def _short_folder() -> Path:
    root = tempfile.gettempdir()
    if len(root) > _LONGEST_TEMP_DIR or sys.platform == "darwin":
        root = "/tmp"
    return Path(tempfile.mkdtemp(prefix="rl-ray-", dir=root))


class _kept_signal_handlers:  # noqa: N801 - reads as a statement
    """Give back the interrupt handler that Ray Train replaces."""

    def __enter__(self) -> None:
        self._handler = signal.getsignal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handler)
