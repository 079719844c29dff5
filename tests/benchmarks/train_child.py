"""What a worker of the training benchmark runs, under Ray Train and under torchrun alike."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.worker_loop import WorkerContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ml.training.job import TrainJob

PLAN_FILE = "plan.json"
STEADY_FILE = "steady"


def timing_file(rank: int) -> str:
    """Return the name of the file that a worker writes its times into."""
    return f"timing-{rank}.json"


def idle(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Do nothing for `config["seconds"]`; write down from when to when."""
    began = time.time()
    time.sleep(config["seconds"])
    timing = {"began": began, "ended": time.time()}
    (context.folder / timing_file(context.rank)).write_text(json.dumps(timing))
    context.keep({}, context.folder, [])


def timed_ranker(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the prepared folder `config["data"]` as the ranker's asset does; write times down.

    They are, in seconds since 1970: when the function began, when each step asked for its loss,
    and when each epoch ended; and the history. A file tells when the first epoch has ended.
    """
    started = time.time()
    from ml.ranking.sequence_ranker.fit import fit
    from ml.training.job import Launch

    losses: list[float] = []
    ends: list[float] = []

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        ends.append(time.time())
        if context.rank == 0:
            (context.folder / STEADY_FILE).touch()
        context.report(metrics, checkpoint)

    launch = Launch(
        step_batches=context.most_workers, change=lambda job: _noting(job, times=losses)
    )
    result = fit(Path(config["data"]), report=report, prepare=context.prepare, launch=launch)
    timing = {
        "started": started,
        "losses": losses,
        "ends": ends,
        "history": result.history,
    }
    (context.folder / timing_file(context.rank)).write_text(json.dumps(timing))
    context.keep(result.best, result.checkpoint, result.history)


def _noting(job: "TrainJob", *, times: list[float]) -> "TrainJob":
    """Return the job, which notes when its losses are asked for."""
    plain: Callable[[nn.Module, Any], tuple[Tensor, Tensor]] = job.loss

    def loss(model: "nn.Module", batch: Any) -> "tuple[Tensor, Tensor]":
        times.append(time.time())
        return plain(model, batch)

    return replace(job, loss=loss)


def main(folder: Path) -> None:
    """Run as one of torchrun's processes: the same function, with nothing behind its callables."""
    import torch
    import torch.distributed as dist

    plan = json.loads((folder / PLAN_FILE).read_text())
    dist.init_process_group("gloo")
    torch.set_num_threads(plan["threads"])
    context = WorkerContext(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        most_workers=dist.get_world_size(),
        threads=plan["threads"],
        folder=folder,
        report=lambda metrics, checkpoint: None,
        keep=lambda metrics, checkpoint, history: None,
        prepare=lambda model: model,
    )
    timed_ranker({"data": plan["data"]}, context)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
