"""Single runs of the HDET bench: one model takes all parts of each step; schedules and averages."""

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.training.parameters import parameter_groups
from ml.training.seeds import seeded
from tests.benchmarks.hdet_plan import Plan
from tests.benchmarks.hdet_schedule_free import ScheduleFreeAdamW
from tests.benchmarks.hdet_steps import Fit, backward, set_mean
from tests.benchmarks.hdet_task import Task

SCHEDULES = ("one_cycle", "cosine", "constant", "schedule_free")


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleRun:
    """Say how one model is trained alone.

    Attributes:
        schedule: One of `SCHEDULES`. The one-cycle is the training loop's; "cosine" falls from the
            peak to 0 without a warm-up, with which it would be the one-cycle again; "constant"
            stays after a warm-up, and also gives its averages: EMA, and SWA of the last quarter.
        is_longer: Whether the run takes as many steps more as the probes of HDET cost.
    """

    schedule: str
    is_longer: bool = False

    def __post_init__(self) -> None:
        """Check the name.

        Raises:
            ValueError: If there is no such schedule.
        """
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no schedule {self.schedule!r}; choose one of {SCHEDULES}")

    def steps(self, plan: Plan) -> int:
        """Return the optimiser steps."""
        return plan.longer_steps if self.is_longer else plan.steps


def fit_single(
    task: Task, run: SingleRun, *, rate: float, seed: int
) -> tuple[dict[str, SequenceRanker], Fit]:
    """Train one model; return the weights that are scored, by name, and how it went.

    The training ends early once the loss is not finite.

    Args:
        task: Data, model and sizes.
        run: Schedule and length.
        rate: Peak of the rate.
        seed: Seed of everything random.
    """
    began, fit, plan = time.process_time(), Fit(), task.plan
    model = task.model(seed).train()
    optimizer = _optimizer(task, run, model, rate=rate)
    scheduler = _scheduler(task, run, optimizer, rate=rate)
    averages = _Averages(model, plan=plan) if run.schedule == "constant" else None
    with seeded(seed=seed, epoch=0, rank=0):
        for parts in islice(task.parts(model, seed=seed), run.steps(plan)):
            optimizer.zero_grad(set_to_none=True)
            found = [backward(model, part) for part in parts]
            weight = sum(weight for _, weight in found)
            set_mean([model], weight=weight, clip_norm=plan.recipe.training.clip_norm)
            optimizer.step()
            fit.steps += 1
            if scheduler is not None:
                scheduler.step()
            if averages is not None:
                averages.add(model, step=fit.steps)
            if not math.isfinite(sum(loss for loss, _ in found)):
                fit.stopped = f"the loss is not finite at step {fit.steps}"
                break
    if isinstance(optimizer, ScheduleFreeAdamW):
        optimizer.use_average()
    fit.cpu_seconds = time.process_time() - began
    return {"last": model} | ({} if averages is None else averages.models), fit


def _optimizer(task: Task, run: SingleRun, model: nn.Module, *, rate: float) -> Optimizer:
    if run.schedule != "schedule_free":
        return task.optimizer(model, rate)
    decay = task.plan.recipe.training.weight_decay
    return ScheduleFreeAdamW(
        parameter_groups(model, weight_decay=decay),
        lr=rate,
        warmup_steps=task.plan.warmup_steps,
    )


def _scheduler(
    task: Task, run: SingleRun, optimizer: Optimizer, *, rate: float
) -> LRScheduler | None:
    cycle, steps, warmup = task.plan.recipe.training, run.steps(task.plan), task.plan.warmup_steps
    if run.schedule == "one_cycle":
        return OneCycleLR(
            optimizer,
            rate,
            total_steps=steps,
            pct_start=cycle.warmup_fraction,
            cycle_momentum=False,
            div_factor=cycle.div_factor,
            final_div_factor=cycle.final_div_factor,
        )
    if run.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if run.schedule == "constant":
        return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(warmup, 1)))
    return None


class _Averages:
    """Average the weights of a run as it goes on, in two ways."""

    def __init__(self, model: SequenceRanker, *, plan: Plan) -> None:
        decay = get_ema_multi_avg_fn(plan.ema_decay)
        self._ema = AveragedModel(model, multi_avg_fn=decay)
        self._swa = AveragedModel(model)
        self._swa_from = plan.average_from

    def add(self, model: SequenceRanker, *, step: int) -> None:
        """Take in the weights after a step."""
        self._ema.update_parameters(model)
        if step > self._swa_from:
            self._swa.update_parameters(model)

    @property
    def models(self) -> dict[str, SequenceRanker]:
        """Return the averaged models by name."""
        return {
            "ema": cast(SequenceRanker, self._ema.module),
            "swa": cast(SequenceRanker, self._swa.module),
        }
