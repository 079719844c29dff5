"""The training loop: epochs, replicas, early stopping and checkpoints, for any model.

Who runs it (Ray, a test, a plain script) is hidden behind `report` and `prepare`. With an
initialised process group it is data-parallel by its own all-reduce, because HDET's replicas
differ between syncs; without one it is a plain loop.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ml.training.checkpoint import (
    load_model,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
)
from ml.training.collectives import Collectives, SingleReplica
from ml.training.flat import pack, unpack_into
from ml.training.hdet import HDETScheduler, SyncReport, perturb
from ml.training.hdet_controller import HdetConfig
from ml.training.parameters import parameter_groups
from ml.training.precision import forward_pass, number_format
from ml.training.seeds import seeded

Report = Callable[[dict[str, float], Path | None], None]
Prepare = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Say how long and how fast to train.

    Attributes:
        epochs: Epochs at most; the learning rate's cycle spans them.
        max_steps: Optimiser steps at most, None for all.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled decay of matrices.
        warmup_fraction: Share of the steps in which the learning rate rises.
        div_factor: Peak over first learning rate.
        final_div_factor: First over last learning rate.
        clip_norm: Largest norm of the averaged gradient.
        patience: Evaluations without improvement before stopping.
        monitor: Validation metric to minimise.
        precision: "auto", "float32" or "bfloat16".
        seed: Seed of dropout.
        hdet: Replicas' learning rates and their controller.
    """

    epochs: int = 8
    max_steps: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    div_factor: float = 25.0
    final_div_factor: float = 40.0
    clip_norm: float = 1.0
    patience: int = 2
    monitor: str = "validation_ne"
    precision: str = "auto"
    seed: int = 0
    hdet: HdetConfig = field(default_factory=HdetConfig)

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.epochs < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ValueError("epochs and max_steps must be at least 1")
        if min(self.learning_rate, self.clip_norm) <= 0 or self.weight_decay < 0:
            raise ValueError(
                "learning_rate and clip_norm must be positive, weight_decay not below 0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """Hold what is trained on, and where it goes.

    Attributes:
        epoch: Takes an epoch's number, returns this replica's batches.
        steps_per_epoch: Batches per epoch, equal on all replicas and in all epochs.
        loss: Takes model and batch, returns summed loss and the weight it is summed over.
        validate: Takes the model, returns metrics, equal on all replicas.
        folder: Where checkpoints go; the newest one there is continued from.
        probe: Takes model and sync number, returns losses of examples shared by the replicas.
        collectives: How to reach the other replicas.
        texts: Files to keep beside the weights, such as configs in JSON.
    """

    epoch: Callable[[int], Iterable[Any]]
    steps_per_epoch: int
    loss: Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
    validate: Callable[[nn.Module], dict[str, float]]
    folder: Path
    probe: Callable[[nn.Module, int], Tensor] | None = None
    collectives: Collectives = field(default_factory=SingleReplica)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Tell how a training went.

    Attributes:
        best: Metrics of the best epoch.
        checkpoint: Folder of the best epoch, on replica 0's disk.
        history: Metrics of every epoch, oldest first.
        syncs: Every meeting of the replicas, oldest first.
    """

    best: dict[str, float]
    checkpoint: Path
    history: list[dict[str, float]]
    syncs: list[SyncReport]


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
        prepare: Moves the model to its device before the optimiser is made.

    Returns:
        The best epoch, its checkpoint and the history.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    return _Trainer(prepare(model), job, config).run(report)


class _Trainer:
    """Hold the moving parts of one training."""

    def __init__(self, model: nn.Module, job: TrainJob, config: TrainConfig) -> None:
        self.model, self.job, self.config = model, job, config
        self.replicas = job.collectives
        self.device = next(model.parameters()).device
        self.dtype = number_format(config.precision, device=self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._make_equal()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, weight_decay=config.weight_decay),
            lr=config.learning_rate,
            fused=True,
        )
        total = config.epochs * job.steps_per_epoch
        self.scheduler = HDETScheduler(
            self.optimizer,
            config.learning_rate,
            total_steps=min(total, config.max_steps or total),
            pct_start=config.warmup_fraction,
            cycle_momentum=False,
            div_factor=config.div_factor,
            final_div_factor=config.final_div_factor,
            config=config.hdet,
            collectives=self.replicas,
            probe=self._probe if job.probe is not None else None,
        )
        self.step = self.first_epoch = 0
        self.history: list[dict[str, float]] = []
        self.syncs: list[SyncReport] = []

    def run(self, report: Report) -> TrainResult:
        """Run all epochs that are left."""
        self._resume()
        for epoch in range(self.first_epoch, self.config.epochs):
            if self._is_over():
                break
            metrics = self._run_epoch(epoch)
            self.history.append(metrics)
            checkpoint = self._save(epoch) if self.replicas.rank == 0 else None
            report(metrics, checkpoint)
        best = self._best()
        return TrainResult(
            best=self.history[best],
            checkpoint=self._checkpoint(best),
            history=self.history,
            syncs=self.syncs,
        )

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, let the replicas meet, validate."""
        started, first_sync = time.perf_counter(), len(self.syncs)
        totals = torch.zeros(2, dtype=torch.float64)
        self.model.train()
        with seeded(seed=self.config.seed, epoch=epoch, rank=self.replicas.rank):
            for batch in self.job.epoch(epoch):
                totals += self._train_step(batch)
                if self.step == self.scheduler.total_steps:
                    break
        self._note(self.scheduler.sync())
        groups = [group["name"] for group in self.optimizer.param_groups]
        trained = time.perf_counter()
        self.model.eval()
        with torch.no_grad():
            metrics = self.job.validate(self.model)
        return {
            "epoch": float(epoch),
            "step": float(self.step),
            "train_loss": float(totals[0] / totals[1]),
            "train_seconds": trained - started,
            "validation_seconds": time.perf_counter() - trained,
            **metrics,
            **_sync_metrics(self.syncs[first_sync:], groups),
        }

    def _train_step(self, batch: Any) -> Tensor:
        """Take one optimiser step; return summed loss and weight over the replicas."""
        batch = batch.to(self.device) if hasattr(batch, "to") else batch
        self.optimizer.zero_grad(set_to_none=True)
        with forward_pass(self.dtype, device=self.device):
            loss, weight = self.job.loss(self.model, batch)
        loss.backward()
        totals = self._average_gradients(loss.detach(), weight.detach())
        if not math.isfinite(float(totals[0])):
            raise FloatingPointError(
                f"the loss is {float(totals[0])} at step {self.step}; lower the learning rate"
            )
        self.optimizer.step()
        self.step += 1
        self._note(self.scheduler.step(loss.detach() / weight.clamp(min=1)))
        return totals

    def _average_gradients(self, loss: Tensor, weight: Tensor) -> Tensor:
        """Divide the summed gradients by the weight, all-reduced in shared mode, then clip."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        totals = torch.stack([loss.float(), weight.float()])
        flat = pack([totals, *gradients])
        if self.config.hdet.gradient_sync == "shared" and self.replicas.size > 1:
            flat = self.replicas.sum(flat)
        mean = flat[2:] / flat[1].clamp(min=1)
        scale = (self.config.clip_norm / (mean.norm() + 1e-6)).clamp(max=1.0)
        unpack_into(mean * scale, gradients)
        return flat[:2].double().cpu()

    def _is_over(self) -> bool:
        """Return whether the steps are spent or validation has stopped improving."""
        waited = len(self.history) - 1 - self._best() if self.history else 0
        return self.step >= self.scheduler.total_steps or waited >= self.config.patience

    def _best(self) -> int:
        """Return the epoch with the lowest monitored metric; an undefined one is never best."""
        values = [metrics[self.config.monitor] for metrics in self.history]
        return min(
            range(len(values)), key=lambda i: math.inf if math.isnan(values[i]) else values[i]
        )

    def _probe(self, sync: int) -> Tensor:
        """Return the losses of the shared probe examples."""
        assert self.job.probe is not None
        self.model.eval()
        with torch.no_grad():
            losses = self.job.probe(self.model, sync)
        self.model.train()
        return losses.detach().float()

    def _note(self, sync: SyncReport | None) -> None:
        """Keep what a sync reported."""
        if sync is not None:
            self.syncs.append(sync)

    def _make_equal(self) -> None:
        """Give every replica the weights of replica 0, plus its own noise if configured."""
        if self.replicas.size == 1:
            return
        flat = pack(self.parameters)
        unpack_into(
            self.replicas.sum(flat if self.replicas.rank == 0 else flat * 0), self.parameters
        )
        hdet = self.config.hdet
        if hdet.noise_fraction:
            perturb(
                self.parameters,
                fraction=hdet.noise_fraction,
                seed=hdet.seed,
                rank=self.replicas.rank,
            )

    def _checkpoint(self, epoch: int) -> Path:
        """Return the folder of an epoch's checkpoint."""
        return self.job.folder / f"step-{int(self.history[epoch]['step']):09d}"

    def _save(self, epoch: int) -> Path:
        """Write the checkpoint; only it and the best are kept."""
        folder = save_checkpoint(
            self._checkpoint(epoch),
            self.model,
            optimizer=self.optimizer,
            state={
                "history": self.history,
                "syncs": [asdict(sync) for sync in self.syncs],
                "scheduler": self.scheduler.state_dict(),
            },
            texts=self.job.texts,
        )
        keep = {folder, self._checkpoint(self._best())}
        for old in self.job.folder.glob("step-*"):
            if old not in keep:
                shutil.rmtree(old)
        return folder

    def _resume(self) -> None:
        """Continue from the newest checkpoint of the folder, if there is one."""
        folder = newest_checkpoint(self.job.folder)
        if folder is None:
            return
        state = load_state(folder)
        load_model(folder, self.model)
        load_optimizer(folder, self.optimizer)
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = state["history"]
        self.syncs = [SyncReport(**sync) for sync in state["syncs"]]
        self.first_epoch, self.step = len(self.history), int(self.history[-1]["step"])


def _sync_metrics(syncs: list[SyncReport], groups: list[str]) -> dict[str, float]:
    """Return the evidence of an epoch's syncs, and the last learning rates of each replica."""
    if not syncs:
        return {}
    metrics = {
        "replica_difference_before_converge": max(s.difference_before for s in syncs),
        "replica_difference_after_converge": max(s.difference_after for s in syncs),
    }
    last = syncs[-1]
    for group, (name, multiplier) in enumerate(zip(groups, last.multipliers, strict=True)):
        metrics[f"learning_rate_multiplier_{name}"] = multiplier
        for rank, rates in enumerate(last.learning_rates):
            metrics[f"learning_rate_{name}_replica_{rank}"] = rates[group]
    return metrics
