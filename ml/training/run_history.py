"""What the epochs of a training tell: their metrics, which was best, how long it has been."""

import math
from collections.abc import Sequence

from ml.training.hdet.state import SyncReport
from ml.training.progress import Progress


def best_epochs(history: Sequence[dict[str, float]], *, monitor: str) -> list[int]:
    """Return the epochs from the lowest monitored metric up; an undefined one comes last."""
    values = [metrics[monitor] for metrics in history]
    return sorted(
        range(len(values)), key=lambda i: math.inf if math.isnan(values[i]) else values[i]
    )


def waited_epochs(history: Sequence[dict[str, float]], *, monitor: str) -> int:
    """Return how many epochs have passed since the best one; 0 before the first."""
    if not history:
        return 0
    return len(history) - 1 - best_epochs(history, monitor=monitor)[0]


def epoch_metrics(progress: Progress, *, step: int, skipped: int) -> dict[str, float]:
    """Return what the training itself knows of an epoch.

    Args:
        progress: The epoch's sums.
        step: Optimiser steps so far.
        skipped: Steps so far that were left out because their loss was not finite.
    """
    return {
        "epoch": float(progress.epoch),
        "step": float(step),
        "train_loss": progress.loss / progress.weight if progress.weight else math.nan,
        "train_seconds": progress.seconds,
        "data_wait_seconds": progress.waited_seconds,
        "skipped_steps": float(skipped),
    }


def sync_metrics(syncs: Sequence[SyncReport], *, groups: Sequence[str]) -> dict[str, float]:
    """Return the evidence of an epoch's meetings, and the last values of each replica.

    Args:
        syncs: The meetings, oldest first.
        groups: Names of the parameter groups.
    """
    if not syncs:
        return {}
    last = syncs[-1]
    metrics = {
        "replica_difference_before_converge": max(s.difference_before for s in syncs),
        "replica_difference_after_converge": max(s.difference_after for s in syncs),
        "replicas_left_out": float(sum(len(s.left_out) for s in syncs)),
    }
    for group, (name, multiplier) in enumerate(zip(groups, last.multipliers, strict=True)):
        metrics[f"learning_rate_multiplier_{name}"] = multiplier
        for rank, rates in enumerate(last.learning_rates):
            metrics[f"learning_rate_{name}_replica_{rank}"] = rates[group]
    for name, values in last.hyper_values.items():
        metrics[f"{name}_multiplier"] = last.hyper_multipliers[name]
        for rank, value in enumerate(values):
            metrics[f"{name}_replica_{rank}"] = value
    return metrics
