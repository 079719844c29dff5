"""What a converge costs beside a step, on two real processes that talk by gloo, timed directly.

Each process trains AttnMVP on its own batches of an exam, with an all-reduce of the gradients in
every step, as the training loop does. At each sync both first wait for each other; then the call
of the scheduler alone is timed, so that no difference of two runs is taken. The controller is
off: its probe is a forward pass, which the bench counts apart.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from ml.ranking.contenders import Exam
from ml.ranking.leaderboard.exam_folder import ExamFolder
from ml.ranking.sequence_ranker.recipes import attn_mvp
from ml.ranking.sequence_ranker.training import batches_for, build_model
from ml.training.collectives import ProcessGroupReplicas
from ml.training.flat import pack, unpack_into
from ml.training.hdet.controller import HdetConfig
from ml.training.hdet.scheduler import HDETScheduler
from ml.training.parameters import parameter_groups
from tests.benchmarks.hdet_steps import backward, gradients

WORKERS = 2
MODES = ("shared", "local")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvergeTiming:
    """Say what is timed.

    Attributes:
        folder: The exam.
        sync_steps: Steps between converges (T), as the goal states it.
        rounds: Converges that are timed, after one that is not.
    """

    folder: Path
    sync_steps: int = 100
    rounds: int = 3


@dataclass(kw_only=True, slots=True)
class Times:
    """Hold what one process measured, seconds each.

    Attributes:
        steps: Whole steps between converges, gradients' all-reduce included.
        syncs: Converges, from the moment at which all had come.
        waits: How long this process waited for the others before a converge.
    """

    steps: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def converge_figures(timing: ConvergeTiming) -> dict[str, float | None]:
    """Return the share of a converge in T steps, by mode and at worst, and the times behind it."""
    figures: dict[str, float | None] = {}
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, args=(timing, folder), nprocs=WORKERS)
        found = json.loads((Path(folder) / "times.json").read_text())
    for mode, times in found.items():
        step, sync = median(times["steps"]), median(times["syncs"])
        shares.append(sync / (timing.sync_steps * step))
        figures |= {
            f"converge_share_{mode}": shares[-1],
            f"converge_seconds_{mode}": sync,
            f"converge_wait_seconds_{mode}": median(times["waits"]),
            f"converge_step_seconds_{mode}": step,
        }
    return {"converge_share": max(shares), **figures}


def _worker(rank: int, timing: ConvergeTiming, folder: str) -> None:
    """Train on one of the processes in every mode; the first writes its times."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORKERS)
    exam = ExamFolder(path=timing.folder).exam()
    found = {mode: asdict(_timed(exam, timing, mode=mode)) for mode in MODES}
    if rank == 0:
        (Path(folder) / "times.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _timed(exam: Exam, timing: ConvergeTiming, *, mode: str) -> Times:
    """Train in one mode; nothing is kept of the steps up to the first converge."""
    recipe, replicas = attn_mvp(), ProcessGroupReplicas()
    train = exam.splits["train"]
    model = build_model(recipe, spec=exam.spec, items=exam.items, train=train).train()
    decay, clip_norm = recipe.training.weight_decay, recipe.training.clip_norm
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=decay), fused=True)
    total = timing.sync_steps * (timing.rounds + 1)
    scheduler = HDETScheduler(
        optimizer,
        recipe.training.learning_rate,
        total_steps=total,
        cycle_momentum=False,
        config=HdetConfig(sync_steps=timing.sync_steps, gradient_sync=mode, auto_lr=False),
        collectives=replicas,
    )
    batches = batches_for(model, train, config=recipe.batches)
    epochs = (WORKERS * epoch + replicas.rank for epoch in count())
    stream = (batch for epoch in epochs for batch in batches.epoch(epoch))
    times, began = Times(), time.perf_counter()
    for step, batch in enumerate(islice(stream, total), start=1):
        optimizer.zero_grad(set_to_none=True)
        loss, weight = backward(model, batch)
        _average(model, weight, is_shared=mode == "shared", clip_norm=clip_norm)
        optimizer.step()
        meets, arrived = step % timing.sync_steps == 0, time.perf_counter()
        if meets:
            dist.barrier()
        met = time.perf_counter()
        scheduler.step(loss / max(weight, 1.0))
        ended = time.perf_counter()
        if meets and step > timing.sync_steps:
            times.syncs.append(ended - met)
            times.waits.append(met - arrived)
        elif step > timing.sync_steps:
            times.steps.append(ended - began)
        began = time.perf_counter()
    return times


def _average(model: nn.Module, weight: float, *, is_shared: bool, clip_norm: float) -> None:
    """Give this process the mean gradient, of all processes if shared, clipped."""
    own = gradients(model)
    flat = pack([torch.tensor([weight]), *own])
    if is_shared:
        dist.all_reduce(flat)
    mean = flat[1:] / flat[0].clamp(min=1)
    unpack_into(mean * (clip_norm / (mean.norm() + 1e-6)).clamp(max=1.0), own)
