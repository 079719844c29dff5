"""Replicas of HDET in one process: they step in turn in one thread, and meet in a thread each.

The scheduler is the engine's own, one for each replica. Its exchanges wait for all replicas, so
its `step` and `sync` run in threads; everything else runs in a fixed order in the main thread,
for dropout draws from one stream.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from torch import Tensor

from ml.batches import Batch
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.training.hdet.controller import HdetConfig
from ml.training.hdet.scheduler import HDETScheduler, SyncReport
from ml.training.seeds import seeded
from tests.benchmarks.hdet_steps import Fit, backward, set_mean
from tests.benchmarks.hdet_task import Task
from tests.ml.replica_threads import ThreadReplicas

Result = TypeVar("Result")
_DIGITS = 4


class Meeting:
    """Run something on every replica at once, each in a thread of its own."""

    def __init__(self, size: int) -> None:
        """Start the threads."""
        self._barrier = threading.Barrier(size, timeout=120)
        board: list[Tensor | None] = [None] * size
        self.members = [ThreadReplicas(rank, board, self._barrier) for rank in range(size)]
        self._pool = ThreadPoolExecutor(size)

    def together(self, run: Callable[[int], Result]) -> list[Result]:
        """Return what `run` returns for each rank; who fails ends the waiting of the others.

        Raises:
            BaseException: What the first replica that failed has raised.
        """

        def guarded(rank: int) -> Result:
            try:
                return run(rank)
            except BaseException:
                self._barrier.abort()
                raise

        calls = [self._pool.submit(guarded, member.rank) for member in self.members]
        errors = [error for call in calls if (error := call.exception()) is not None]
        waited = threading.BrokenBarrierError
        for error in sorted(errors, key=lambda error: isinstance(error, waited)):
            raise error
        return [call.result() for call in calls]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Replicas:
    """Hold the models, optimisers and schedulers of one fit."""

    def __init__(
        self, task: Task, config: HdetConfig, *, rate: float, seed: int, has_probe: bool
    ) -> None:
        """Start all replicas from the same weights.

        Args:
            task: Data, model and sizes.
            config: Spread, syncs and controller.
            rate: Peak of the cycle.
            seed: Seed of the weights, the data's order and the permutations.
            has_probe: Whether the controller looks at probes and not at training losses.
        """
        size, cycle = task.plan.replicas, task.plan.recipe.training
        first = task.model(seed).train()
        self.models: list[SequenceRanker] = [first, *(deepcopy(first) for _ in range(size - 1))]
        self.meeting = Meeting(size)
        self.probe_seconds = [0.0] * size
        self._is_shared = config.gradient_sync == "shared"
        self._clip_norm = cycle.clip_norm
        self._optimizers = [task.optimizer(model, rate) for model in self.models]
        self._probes = task.probes(first, seed=seed)
        self._schedulers = self.meeting.together(
            lambda rank: HDETScheduler(
                self._optimizers[rank],
                rate,
                total_steps=task.plan.steps,
                pct_start=cycle.warmup_fraction,
                cycle_momentum=False,
                div_factor=cycle.div_factor,
                final_div_factor=cycle.final_div_factor,
                config=replace(config, seed=seed),
                collectives=self.meeting.members[rank],
                probe=self._probe_of(rank) if has_probe else None,
            )
        )

    def step(self, parts: list[Batch]) -> tuple[list[float], SyncReport | None]:
        """Take one step; return the mean loss of each replica, and what a sync reported."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        found = [backward(m, part) for m, part in zip(self.models, parts, strict=True)]
        if self._is_shared:
            weight = sum(weight for _, weight in found)
            set_mean(self.models, weight=weight, clip_norm=self._clip_norm)
        else:
            for model, (_, weight) in zip(self.models, found, strict=True):
                set_mean([model], weight=weight, clip_norm=self._clip_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        losses = [loss / max(weight, 1.0) for loss, weight in found]
        reports = self.meeting.together(lambda rank: self._schedulers[rank].step(losses[rank]))
        return losses, reports[0]

    def sync(self) -> None:
        """Let the replicas meet now; then their weights are equal."""
        self.meeting.together(lambda rank: self._schedulers[rank].sync())

    def _probe_of(self, rank: int) -> Callable[[int], Tensor]:
        def probe(sync: int) -> Tensor:
            began = time.thread_time()
            losses = self._probes.losses(self.models[rank], sync)
            self.probe_seconds[rank] += time.thread_time() - began
            return losses

        return probe


def fit_replicas(
    task: Task, config: HdetConfig, *, rate: float, seed: int, has_probe: bool
) -> tuple[SequenceRanker, Fit]:
    """Train by HDET; return the model of the replicas' last meeting and how it went.

    The training ends early once no replica has a finite loss, or by the scheduler's own rule; one
    replica alone is left to the scheduler.

    Args:
        task: Data, model and sizes.
        config: Spread, syncs and controller.
        rate: Peak of the cycle.
        seed: Seed of everything random.
        has_probe: Whether the controller looks at probes and not at training losses.
    """
    began, fit = time.process_time(), Fit()
    replicas = Replicas(task, config, rate=rate, seed=seed, has_probe=has_probe)
    first = replicas.models[0]
    try:
        with seeded(seed=seed, epoch=0, rank=0):
            for parts in islice(task.parts(first, seed=seed), task.plan.steps):
                losses, report = replicas.step(parts)
                fit.steps += 1
                if report is not None:
                    fit.trace.append(_traced(report))
                if not any(math.isfinite(loss) for loss in losses):
                    fit.stopped = f"no replica's loss is finite at step {fit.steps}"
                    break
            else:
                replicas.sync()
    except FloatingPointError as error:
        fit.stopped = f"the scheduler at step {fit.steps + 1}: {error}"
    finally:
        replicas.meeting.close()
    fit.cpu_seconds = time.process_time() - began
    fit.probe_seconds = sum(replicas.probe_seconds)
    return first, fit


def _traced(report: SyncReport) -> dict[str, Any]:
    """Return what the plots show of a sync, in few digits."""
    return {
        "step": report.step,
        "rates": [[_short(rate) for rate in rates] for rates in report.learning_rates],
        "multipliers": [_short(multiplier) for multiplier in report.multipliers],
        "variance_ratio": _short(report.variance_ratio),
        "left_out": list(getattr(report, "left_out", [])),
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
