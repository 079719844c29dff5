"""What a Ray Train worker runs: the caller's function, with Ray behind two callables."""

import functools
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.json_lines import append_line
from infra.training_log import HISTORY_FILE, STARTS_FILE, keep_result
from infra.worker_size import own_threads


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerContext:
    """What a training function may know about where it runs.

    Attributes:
        rank: This worker's number, from 0.
        world_size: How many workers train together.
        most_workers: How many of them there are when all can be placed.
        threads: Processor threads that this worker may use; already given to torch.
        folder: The training's folder, the same for all workers.
        report: Takes metrics and a checkpoint's folder or None. Every worker must call it equally
            often; what rank 0 says is kept. The checkpoint stays where it is.
        keep: Takes metrics, a checkpoint's folder and the metrics of every epoch, those before a
            restart included: the training's result.
        prepare: Takes a model and returns it on this worker's device.
    """

    rank: int
    world_size: int
    most_workers: int
    threads: int
    folder: Path
    report: Callable[[Mapping[str, float], Path | None], None]
    keep: Callable[[Mapping[str, float], Path, Sequence[Mapping[str, float]]], None]
    prepare: Callable[[Any], Any]


def worker_loop(
    train_fn: Callable[[Mapping[str, Any], WorkerContext], None],
    config: dict[str, Any],
    *,
    folder: Path,
    most_workers: int,
    threads: int,
) -> Callable[[], None]:
    """Return the function without arguments that Ray Train starts on each worker.

    Args:
        train_fn: What to call.
        config: First argument of it.
        folder: The training's folder, on storage that all nodes share.
        most_workers: How many workers there are when all can be placed.
        threads: Threads per worker; 0 for its share of its node's processors.
    """
    return functools.partial(
        _run, train_fn, config, folder=folder, most_workers=most_workers, threads=threads
    )


def _run(
    train_fn: Callable[[Mapping[str, Any], WorkerContext], None],
    config: dict[str, Any],
    *,
    folder: Path,
    most_workers: int,
    threads: int,
) -> None:
    import torch
    from ray import train
    from ray.train.torch import get_device

    ranks = train.get_context()
    _check_shared(folder)
    if ranks.get_world_rank() == 0:
        append_line(folder / STARTS_FILE, {"time": time.time(), "workers": ranks.get_world_size()})
    threads = threads or own_threads(ranks.get_local_world_size())
    torch.set_num_threads(threads)
    context = WorkerContext(
        rank=ranks.get_world_rank(),
        world_size=ranks.get_world_size(),
        most_workers=most_workers,
        threads=threads,
        folder=folder,
        report=functools.partial(_report, folder),
        keep=functools.partial(_keep, folder),
        prepare=lambda model: model.to(get_device()),
    )
    train_fn(config, context)


def _report(folder: Path, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
    from ray import train

    train.report(dict(metrics))
    if train.get_context().get_world_rank() == 0:
        saved = None if checkpoint is None else str(checkpoint)
        append_line(folder / HISTORY_FILE, {**metrics, "_checkpoint": saved})


def _keep(
    folder: Path,
    metrics: Mapping[str, float],
    checkpoint: Path,
    history: Sequence[Mapping[str, float]],
) -> None:
    from ray import train

    if train.get_context().get_world_rank() == 0:
        keep_result(folder, metrics, checkpoint, history)


def _check_shared(folder: Path) -> None:
    """Look for the training's folder on this node.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not on node {socket.gethostname()}; keep the data home on storage that "
            "all of Ray's nodes share"
        )
