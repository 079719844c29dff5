"""What a Ray Train worker runs: the caller's function, with Ray behind two callables."""

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.training_log import HISTORY_FILE, STARTED_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerContext:
    """What a training function may know about where it runs.

    Attributes:
        rank: This worker's number, from 0.
        world_size: How many workers train together.
        threads: Processor threads that this worker may use; already given to torch.
        folder: The training's folder, the same for all workers.
        report: Takes metrics and a checkpoint's folder or None. Every worker must call it equally
            often; the metrics and the checkpoint of rank 0 are kept.
        prepare: Takes a model and returns it on this worker's device.
    """

    rank: int
    world_size: int
    threads: int
    folder: Path
    report: Callable[[Mapping[str, float], Path | None], None]
    prepare: Callable[[Any], Any]


def worker_loop(
    train_fn: Callable[[Mapping[str, Any], WorkerContext], None],
    config: dict[str, Any],
    *,
    folder: Path,
    threads: int,
) -> Callable[[], None]:
    """Return the function without arguments that Ray Train starts on each worker.

    Args:
        train_fn: What to call.
        config: First argument of it.
        folder: The training's folder.
        threads: Threads per worker.
    """
    return functools.partial(_run, train_fn, config, folder=folder, threads=threads)


def _run(
    train_fn: Callable[[Mapping[str, Any], WorkerContext], None],
    config: dict[str, Any],
    *,
    folder: Path,
    threads: int,
) -> None:
    import torch
    from ray import train
    from ray.train.torch import get_device

    ranks = train.get_context()
    if ranks.get_world_rank() == 0:
        (folder / STARTED_FILE).write_text(json.dumps(time.time()), encoding="utf-8")
    torch.set_num_threads(threads)
    context = WorkerContext(
        rank=ranks.get_world_rank(),
        world_size=ranks.get_world_size(),
        threads=threads,
        folder=folder,
        report=functools.partial(_report, folder),
        prepare=lambda model: model.to(get_device()),
    )
    train_fn(config, context)


def _report(folder: Path, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
    from ray import train

    is_first = train.get_context().get_world_rank() == 0
    kept = train.Checkpoint.from_directory(str(checkpoint)) if is_first and checkpoint else None
    train.report(dict(metrics), checkpoint=kept)
    if is_first:
        entry = {**metrics, "_has_checkpoint": kept is not None}
        with (folder / HISTORY_FILE).open("a", encoding="utf-8") as history:
            history.write(json.dumps(entry) + "\n")
