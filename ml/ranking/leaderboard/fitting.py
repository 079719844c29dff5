"""Fit one cell: a contender on train and validation, scored on what the cell may look at."""

import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.ranking.contenders import Contender, Scorer, Setting
from ml.ranking.leaderboard.cells import TEST, Cell, Line
from ml.ranking.leaderboard.exam_folder import ExamFolder
from ml.ranking.leaderboard.recipes import contender_of
from ml.ranking.leaderboard.scores import action_scores, slice_scores

# Shapes: T target events, A actions.
PREDICTIONS = "predictions"
_EVENTS = 1_000


def run_cell(folder: str, fields: dict[str, Any]) -> Line:
    """Fit and score a cell on one thread; what a worker runs.

    Args:
        folder: Folder of the exam; predictions of a test cell are kept under it.
        fields: The cell.

    Returns:
        The cell's line of the ledger.
    """
    torch.set_num_threads(1)
    _forget_peak()
    cell = Cell(**fields)
    return fit_cell(ExamFolder(path=Path(folder)), cell, contender=contender_of(cell))


def fit_cell(folder: ExamFolder, cell: Cell, *, contender: Contender) -> Line:
    """Fit a cell, and look at the test split only afterwards and only for a test cell.

    Raises:
        ValueError: If predictions are no probabilities of every action and target event.
    """
    began = time.perf_counter()
    exam = folder.exam()
    folder.work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.work) as work:
        scorer = contender(exam, Setting(seed=cell.seed, trial=cell.trial), Path(work))
        validation = exam.splits["validation"]
        predicted, seconds = _timed(scorer, validation, spec=exam.spec)
        scores = action_scores(validation, predicted, spec=exam.spec, least=1)
        if not np.isfinite(scores[exam.spec.primary_action].get("ne", np.nan)):
            raise ValueError(
                f"the validation split has one class of {exam.spec.primary_action!r} only: "
                "no trial can be chosen, take a longer log"
            )
        line: Line = {**cell.fields, "validation": scores}
        if cell.kind == TEST:
            test = folder.open_test()
            predicted, seconds = _timed(scorer, test, spec=exam.spec)
            line["test"] = action_scores(test, predicted, spec=exam.spec)
            line["slices"] = slice_scores(test, predicted, spec=exam.spec)
            _keep(folder, cell, predicted)
    return {
        **line,
        "num_parameters": int(scorer.num_parameters),
        "train_seconds": float(scorer.train_seconds),
        "epochs": float(scorer.epochs),
        "score_seconds_per_1000": seconds / max(len(predicted), 1) * _EVENTS,
        "peak_bytes": _peak_bytes(),
        "cell_seconds": time.perf_counter() - began,
    }


def _timed(scorer: Scorer, data: SequenceData, *, spec: FeatureSpec) -> tuple[FloatArray, float]:
    """Return checked predictions, float32 [T, A], and the seconds that they took."""
    began = time.perf_counter()
    predicted = scorer.probabilities(data)
    seconds = time.perf_counter() - began
    shape = (int(data.is_target.sum()), len(spec.actions))
    if predicted.shape != shape:
        raise ValueError(f"predictions have the shape {predicted.shape}, not {shape}")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("predictions are not within 0 and 1: return probabilities")
    return predicted.astype(np.float32), seconds


def predictions_file(folder: Path, cell: Cell) -> Path:
    """Return where a test cell's predictions are kept; the data version is a folder."""
    return folder / PREDICTIONS / cell.data / f"{cell.name}.npz"


def _keep(folder: ExamFolder, cell: Cell, predicted_TA: FloatArray) -> None:
    path = predictions_file(folder.path, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, predictions=predicted_TA)


def _forget_peak() -> None:
    """Let the most memory held count from here on; not every kernel can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Return the most memory that this process has held, since `_forget_peak` where that works."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
