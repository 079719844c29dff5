"""Time to RecBole's quality: its best validation NDCG@10 in an hour, and how soon ours is there.

RecBole's epoch that runs when the hour ends is still counted.
"""

import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ml.retrieval.leave_one_out import LeaveOneOut, leave_one_out
from ml.retrieval.sasrec import recipes
from ml.retrieval.sasrec.fit import fit
from tests.benchmarks.result_line import Goal
from tests.benchmarks.sasrec_recbole import RecBole, write_interactions

BUDGET_SECONDS = 3600.0
QUALITY_GOALS = (Goal(figure="our_minutes_to_it", op="<=", limit=6.0),)


class _ReachedError(Exception):
    """Ends a training."""


def quality(
    sequences: list[np.ndarray], *, num_items: int, recbole_log: Path | None
) -> dict[str, float | None]:
    """Return RecBole's best value and epoch, and our time to that value.

    Args:
        sequences: Items of each user.
        num_items: Size of the catalogue.
        recbole_log: Epochs of a finished run; None runs RecBole now.

    Raises:
        ValueError: If the log covers less than the hour.
    """
    _pin_to_one_core()
    if recbole_log is None:
        epochs = recbole_epochs(sequences, seconds=BUDGET_SECONDS)
    else:
        epochs = [json.loads(line) for line in recbole_log.read_text().splitlines()]
    if not epochs or epochs[-1]["seconds"] < BUDGET_SECONDS:
        raise ValueError(f"{recbole_log} does not cover {BUDGET_SECONDS:.0f} s; let it run on")
    best = max(epochs, key=lambda epoch: epoch["ndcg_10"])
    ours = time_to(best["ndcg_10"], leave_one_out(sequences), num_items=num_items)
    figures: dict[str, float | None] = {
        "recbole_best_ndcg_10": best["ndcg_10"],
        "recbole_best_epoch": float(best["epoch"]),
        "recbole_epochs": float(len(epochs)),
        "recbole_minutes": epochs[-1]["seconds"] / 60,
        "recbole_cpu_minutes": epochs[-1]["cpu_seconds"] / 60,
        "recbole_minutes_to_best": best["seconds"] / 60,
        "recbole_cpu_minutes_to_best": best["cpu_seconds"] / 60,
        "our_ndcg_10": ours["ndcg_10"],
        "our_epochs": ours["epochs"],
        "our_minutes_to_it": ours["minutes"],
        "our_cpu_minutes_to_it": ours["cpu_minutes"],
    }
    ours_cpu = ours["cpu_minutes"]
    figures["cpu_over_ours"] = None if ours_cpu is None else best["cpu_seconds"] / 60 / ours_cpu
    return figures


def recbole_epochs(sequences: list[np.ndarray], *, seconds: float) -> list[dict[str, Any]]:
    """Let RecBole train for some seconds; return a line per epoch."""
    with tempfile.TemporaryDirectory() as home:
        folder, log = Path(home) / "beauty", Path(home) / "epochs.jsonl"
        write_interactions(folder, sequences)
        with RecBole(folder, settings={"train_batch_size": 256}) as recbole:
            recbole.ask(do="fit", seconds=seconds, log=str(log))
        return [json.loads(line) for line in log.read_text().splitlines()]


def time_to(
    wanted: float, split: LeaveOneOut, *, num_items: int, recipe: recipes.SasRecRecipe | None = None
) -> dict[str, float | None]:
    """Train ours until its validation NDCG@10 is at least `wanted`.

    Returns:
        NDCG, epochs and minutes; None for the minutes if it was never reached.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    best: dict[str, float | None] = {"ndcg_10": 0.0, "minutes": None, "cpu_minutes": None}

    def report(metrics: dict[str, float], _: Path | None) -> None:
        best["ndcg_10"] = max(best["ndcg_10"] or 0.0, metrics["validation_ndcg_10"])
        best["epochs"] = metrics["epoch"] + 1
        if metrics["validation_ndcg_10"] >= wanted:
            best["minutes"] = (time.perf_counter() - wall) / 60
            best["cpu_minutes"] = (time.process_time() - cpu) / 60
            raise _ReachedError

    with tempfile.TemporaryDirectory() as folder, suppress(_ReachedError):
        fit(
            split,
            recipe=recipe or recipes.default(),
            num_items=num_items,
            folder=Path(folder),
            report=report,
        )
    return best


def _pin_to_one_core() -> None:
    """Keep this process, and the children it starts, on the last core it may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
