"""The training loop: epochs, replicas, early stopping and checkpoints, for any model.

Who runs it (Ray, a test, a plain script) is hidden behind `report` and `prepare`. With an
initialised process group it is data-parallel by its own all-reduce, because HDET's replicas
differ between syncs; without one it is a plain loop. A checkpoint is written right after the
replicas have met, holds the reader's position and every random stream, and is gone on with as if
nothing had happened.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_state
from ml.training.checkpoint_keeper import CheckpointKeeper, agreed_checkpoint
from ml.training.config import TrainConfig
from ml.training.drivers import AdaScaleDriver, Driver, HdetDriver
from ml.training.gradients import Exchanged
from ml.training.guard import LossGuard
from ml.training.hdet.hyper_parameters import hyper_parameters_of
from ml.training.hdet.scheduler import HDETScheduler
from ml.training.hdet.state import SyncReport
from ml.training.job import Prepare, Report, TrainJob, TrainResult
from ml.training.optimizers import build_optimizer
from ml.training.precision import forward_pass, number_format
from ml.training.prefetch import after, prefetched
from ml.training.progress import Progress, check_steps, random_states, random_stream
from ml.training.replicated import held
from ml.training.run_history import best_epochs, epoch_metrics, sync_metrics, waited_epochs


def train(
    model: nn.Module, job: TrainJob, config: TrainConfig, *, report: Report, prepare: Prepare
) -> TrainResult:
    """Train until the epochs are over or validation stops improving.

    Args:
        model: The model; left with the weights of the last epoch.
        job: Data, loss, validation and folder.
        config: Steps, learning rate and replicas.
        report: Called by every replica after each epoch with the metrics, and on replica 0 with
            the checkpoint's folder.
        prepare: Moves the model to its device before the optimiser is made; a model that is
            split over the workers is moved part by part instead.

    Returns:
        The best epoch, its checkpoint and the history.

    Raises:
        TrainingDivergedError: If losses stay infinite or explode in spite of the guard's rule.
        ValueError: If an epoch has fewer batches than the job promises.
        OSError: If no epoch's checkpoint could be written.
    """
    if config.sharding == "none":
        model = prepare(model)
    return _Trainer(model, job, config).run(report)


_NO_STEP = (0.0, 0.0, 0.0)


class _LossExplodedError(Exception):
    """End an epoch whose loss has exploded, on every replica at the same step."""


class _Trainer:
    """Hold the moving parts of one training."""

    def __init__(self, model: nn.Module, job: TrainJob, config: TrainConfig) -> None:
        self.job, self.config = job, config
        self.replicas = job.collectives
        self.held = held(model, config, replicas=self.replicas)
        self.model = self.held.model
        self.device = next(self.model.parameters()).device
        self.dtype = number_format(config.precision, device=self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.is_shared = config.hdet.gradient_sync == "shared"
        self.driver = self._driver()
        self.guard = LossGuard(config.guard)
        self.keeper = CheckpointKeeper(job.folder, config=config.checkpoints)
        self.step = 0
        self.progress = Progress()
        self.random: list[str] | None = None
        self.stand_in: Any = None
        self.history: list[dict[str, float]] = []
        self.syncs: list[SyncReport] = []
        self.unjudged = torch.zeros(3, dtype=torch.float64)

    def _driver(self) -> Driver:
        """Return what drives the learning rate."""
        config, replicas = self.config, self.replicas
        planned = config.epochs * self.job.steps_per_epoch
        if config.adascale is not None:
            return AdaScaleDriver(
                self.optimizer,
                config,
                batches_per_step=self.job.shared_batches
                or self.job.batches_per_step * replicas.size,
                steps=planned,
                collectives=replicas,
            )
        hdet = config.hdet
        scheduler = HDETScheduler(
            self.optimizer,
            [group["lr"] for group in self.optimizer.param_groups],
            total_steps=min(planned, config.max_steps or planned),
            pct_start=config.warmup_fraction,
            cycle_momentum=False,
            div_factor=config.div_factor,
            final_div_factor=config.final_div_factor,
            config=hdet,
            collectives=replicas,
            probe=self._probe if self.job.probe is not None else None,
            hyper_parameters=hyper_parameters_of(
                hdet.diverse, model=self.model, optimizer=self.optimizer, starts=hdet.starts
            ),
            touched=self.held.touched,
        )
        return HdetDriver(self.optimizer, scheduler)

    def run(self, report: Report) -> TrainResult:
        """Run all epochs that are left."""
        self._resume()
        while not self._is_over():
            try:
                metrics = self._run_epoch()
            except _LossExplodedError:
                self._go_back()
                continue
            self.history.append(metrics)
            self.progress = self.progress.next_epoch(num_syncs=len(self.syncs))
            report(metrics, self._save())
        best = best_epochs(self.history, monitor=self.config.monitor)
        return TrainResult(
            best=self.history[best[0]],
            checkpoint=self.keeper.best(self._best_steps())
            if self.replicas.rank == 0
            else self.job.folder,
            history=self.history,
            syncs=self.syncs,
        )

    def _run_epoch(self) -> dict[str, float]:
        """Train the rest of an epoch, let the replicas meet, validate."""
        progress, every = self.progress, self.config.checkpoints.steps
        self.model.train()
        stream = random_stream(
            progress, self.random, seed=self.config.seed, collectives=self.replicas
        )
        with stream, closing(self._steps()) as steps:
            while progress.steps < self.job.steps_per_epoch and not self._is_spent():
                self._take_step(steps)
                goes_on = progress.steps < self.job.steps_per_epoch and not self._is_spent()
                if every and self.step % every == 0 and goes_on:
                    self._meet()
                    self.random = random_states(self.replicas, device=self.device)
                    self._save()
        self.random = None
        self._meet()
        started = time.perf_counter()
        self.model.eval()
        with torch.no_grad(), self.driver.rest():
            metrics = self.held.call(self.job.validate)
        return {
            **epoch_metrics(progress, step=self.step, skipped=self.guard.skipped),
            "validation_seconds": time.perf_counter() - started,
            **metrics,
            **sync_metrics(
                self.syncs[progress.first_sync :],
                groups=[group["name"] for group in self.optimizer.param_groups],
            ),
        }

    def _steps(self) -> Generator[list[Any], None, None]:
        """Yield the batches of each step that is left of the epoch, prepared ahead."""
        count, ahead = self.job.batches_per_step, self.config.prefetch
        start = self.progress.steps * count
        batches = after(self.job.epoch(self.progress.epoch), start=start)
        if ahead:
            batches = prefetched(batches, depth=ahead * count)
        with closing(batches):
            while step := list(islice(batches, count)):
                yield step

    def _take_step(self, steps: Iterator[list[Any]]) -> None:
        """Wait for the next batches, take a step, and count both."""
        progress, started = self.progress, time.perf_counter()
        batches = next(steps, None)
        if batches is None:
            raise ValueError(
                f"epoch {progress.epoch} gave batches for {progress.steps} steps, and the job "
                f"promised {self.job.steps_per_epoch}; make steps_per_epoch what the reader gives"
            )
        waited = time.perf_counter() - started
        found = self._train_step(batches)
        progress.steps += 1
        progress.loss += found.loss if found.is_finite else 0.0
        progress.weight += found.weight if found.is_finite else 0.0
        progress.waited_seconds += waited
        progress.seconds += time.perf_counter() - started

    def _train_step(self, batches: list[Any]) -> Exchanged:
        """Take one optimiser step on the sum of some batches' gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        self.driver.begin_step()
        sums = torch.zeros(2, device=self.device)
        for batch in batches:
            if batch is not None:
                sums = sums + self._backward(batch)
                self.stand_in = batch if self.held.needs_every_batch else None
            elif self.held.needs_every_batch:
                self._backward(self._stand_in(), share=0.0)
        found = self.held.finish(sums[0], sums[1])
        self.step += 1
        if not found.is_finite:
            self._leave_out(found)
            return found
        if found.weight == 0:
            # Moments and decay would move the weights without a gradient.
            sync = self.driver.idle()
            self._note(sync)
            self._judge(_NO_STEP, has_met=sync is not None)
            return found
        has_own = any(batch is not None for batch in batches)
        own_loss = sums[0] / sums[1].clamp(min=1) if has_own else None
        sync = self.driver.step(found, own_loss=own_loss)
        self._note(sync)
        self._judge((found.loss, found.weight, 1.0), has_met=sync is not None)
        return found

    def _stand_in(self) -> Any:
        """Return a batch for a worker that has none but must take part in every exchange.

        Any batch will do: its own last one, or the first of the epoch.

        Raises:
            ValueError: If it has none in the whole epoch.
        """
        if self.stand_in is None:
            batches = self.job.epoch(self.progress.epoch)
            self.stand_in = next((batch for batch in batches if batch is not None), None)
        if self.stand_in is None:
            raise ValueError("a worker has no batch in the epoch; train on fewer workers")
        return self.stand_in

    def _backward(self, batch: Any, *, share: float = 1.0) -> Tensor:
        """Add a batch's gradients to those of the step; return its summed loss and weight."""
        batch = batch.to(self.device) if hasattr(batch, "to") else batch
        with forward_pass(self.dtype, device=self.device):
            loss, weight = self.held.call(self.job.loss, batch)
        if self.driver.separates_batches:
            loss, weight = loss / weight.clamp(min=1), torch.ones_like(weight)
        (loss * share if share != 1.0 else loss).backward()
        if self.driver.separates_batches:
            self.driver.note_batch(self.held.hold())
        return torch.stack([loss.detach().float(), weight.detach().float()])

    def _leave_out(self, found: Exchanged) -> None:
        """Go on without a step that is not finite."""
        self.guard.skip(step=self.step - 1, loss=found.loss, all_know=self.is_shared)
        sync = self.driver.leave_out(healthy=found.own_is_finite, all_know=self.is_shared)
        self._note(sync)
        if not self.is_shared:
            self._judge(_NO_STEP, has_met=sync is not None)

    def _meet(self) -> None:
        """Let the replicas meet, so that they are equal."""
        sync = self.driver.meet()
        self._note(sync)
        if not self.is_shared:
            self._judge(_NO_STEP, has_met=sync is not None)

    def _judge(self, sums: tuple[float, float, float], *, has_met: bool) -> None:
        """Look whether the loss explodes; replicas on their own gradients do so when they meet.

        Args:
            sums: Summed loss, its weight, and the number of steps that they are of.
            has_met: Whether the replicas have just met; then each of them must call this.

        Raises:
            _LossExplodedError: If it does.
        """
        self.unjudged += torch.tensor(sums, dtype=torch.float64)
        if self.is_shared or has_met:
            total = self.unjudged
            if not self.is_shared:
                total = self.replicas.sum(total.to(self.device)).cpu()
            self.unjudged = torch.zeros_like(total)
            loss, weight, steps = total.tolist()
            if self.guard.explodes(loss=loss, weight=weight, steps=int(steps)):
                raise _LossExplodedError

    def _is_spent(self) -> bool:
        """Return whether all steps are taken."""
        most = self.config.max_steps
        return self.driver.is_over or (most is not None and self.step >= most)

    def _is_over(self) -> bool:
        """Return whether the steps are spent or validation has stopped improving."""
        waited = waited_epochs(self.history, monitor=self.config.monitor)
        return self._is_spent() or waited >= self.config.patience

    def _probe(self, sync: int) -> Tensor:
        """Return the losses of the shared probe examples."""
        assert self.job.probe is not None
        self.model.eval()
        with torch.no_grad():
            losses = self.held.call(self.job.probe, sync)
        self.model.train()
        return losses.detach().float()

    def _note(self, sync: SyncReport | None) -> None:
        """Keep what a sync reported."""
        if sync is not None:
            self.syncs.append(sync)

    def _best_steps(self) -> list[int]:
        """Return the steps of the epochs' checkpoints, best first."""
        order = best_epochs(self.history, monitor=self.config.monitor)
        return [int(self.history[epoch]["step"]) for epoch in order]

    def _save(self) -> Path | None:
        """Write the checkpoint of this step, on replica 0's disk; the replicas have just met."""
        state = {
            "step": self.step,
            "sizes": self._sizes(),
            "progress": self.progress.state_dict(),
            "random": self.random,
            "history": self.history,
            "syncs": [asdict(sync) for sync in self.syncs],
            "driver": self.driver.state_dict(),
            "guard": self.guard.state_dict(),
        }

        def save(folder: Path) -> None:
            with self.driver.rest():
                self.held.save(folder, self.optimizer, state=state, texts=self.job.texts)

        if self.replicas.rank != 0:
            self.keeper.attempt(self.step, save=save)
            return None
        return self.keeper.write(self.step, save=save, best_steps=self._best_steps())

    def _sizes(self) -> dict[str, int | None]:
        """Return what a step and an epoch are, by name."""
        job = self.job
        return {"batches per step": job.shared_batches, "steps per epoch": job.steps_per_epoch}

    def _resume(self) -> None:
        """Continue from the newest checkpoint, the same one on all replicas, if there is one."""
        folder = agreed_checkpoint(self.keeper, self.replicas, device=self.device)
        if folder is None:
            return
        state = load_state(folder)
        check_steps(folder, saved=state["sizes"], now=self._sizes())
        self.held.load(folder, self.optimizer)
        self.driver.load_state_dict(state["driver"])
        self.guard.load_state_dict(state["guard"])
        self.history, self.random, self.step = state["history"], state["random"], state["step"]
        self.syncs = [SyncReport(**sync) for sync in state["syncs"]]
        self.progress = Progress(**state["progress"])

    def _go_back(self) -> None:
        """Return to the newest checkpoint with a lower learning rate."""
        has_checkpoint = self.keeper.newest() is not None
        factor = self.guard.restore(step=self.step, has_checkpoint=has_checkpoint)
        self._resume()
        self.driver.cool(factor)
