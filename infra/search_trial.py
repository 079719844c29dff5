"""What a Ray Tune worker runs: one trial of a search, trained by the model's own `fit`.

A trial has a folder of its own: links to the prepared data, its recipe, its checkpoints, and
`history.jsonl` with a line for each epoch. When population-based training gives it another trial's
checkpoint, the loop finds that one as the newest of the folder and goes on from it.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.searched_models import prepared_recipe, searched_model
from infra.training_log import HISTORY_FILE
from infra.worker_loop import WorkerContext

SCORE, TIME = "score", "reports"
FAILURE_FILE = "failure.txt"
_ORIGIN_FILE = "trial.json"
_CHECKPOINTS = "checkpoints"
_LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """Say what all trials of a search have in common.

    Attributes:
        model: Name of the model.
        data: The prepared folder.
        folder: Where the trials' folders go.
        fields: Paths of the recipe's fields that the trials change.
        shares: Whether trials go on from each other's checkpoints.
    """

    model: str
    data: Path
    folder: Path
    fields: tuple[str, ...]
    shares: bool

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / f"trial-{number:03d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """One trial between a start and a stop."""

    plan: TrialPlan
    number: int
    values: dict[str, float]
    recipe: Any
    taken_from: int | None

    @property
    def folder(self) -> Path:
        return self.plan.trial_folder(self.number)

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Write the line of an epoch and tell Ray Tune, which may stop the trial here."""
        from ray import tune

        score = float(metrics.get(self.recipe.training.monitor, math.inf))
        score = math.inf if math.isnan(score) else score
        reports = self._write_line({"score": score, "metrics": dict(metrics)})
        kept = None
        if checkpoint is not None and self.plan.shares:
            origin = {"trial": self.number, "reports": reports}
            (checkpoint / _ORIGIN_FILE).write_text(json.dumps(origin))
            kept = tune.Checkpoint.from_directory(str(checkpoint))
        tune.report({SCORE: score, TIME: reports}, checkpoint=kept)

    def fail(self, error: Exception) -> None:
        """Keep the reason and score as the worst.

        A population waits for each member: one that failed keeps its place until a better one's
        checkpoint is given to it, or the epochs are over.
        """
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
        (self.folder / FAILURE_FILE).write_text(reason, encoding="utf-8")
        self.report({}, None)
        while self.plan.shares:
            self.report({}, None)

    def _write_line(self, line: dict[str, Any]) -> int:
        """Add a line to the history; return how many there are."""
        path = self.folder / HISTORY_FILE
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        line |= {"values": self.values, "taken_from": self.taken_from}
        path.write_text(before + json.dumps(line) + "\n", encoding="utf-8")
        return before.count("\n") + 1


def run_trial(config: Mapping[str, float], *, plan: TrialPlan) -> None:
    """Train one trial, from its start or from the checkpoint that Ray Tune hands over.

    Args:
        config: Values of the plan's fields.
        plan: What the trials have in common.
    """
    import torch
    from ray import tune

    torch.set_num_threads(1)
    number = trial_number(tune.get_context().get_trial_id())
    values = {field: float(config[field]) for field in plan.fields}
    folder = plan.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = prepared_recipe(plan.model, plan.data)
    trial = _Trial(plan=plan, number=number, values=values, recipe=recipe, taken_from=None)
    try:
        trial = _prepared(trial, tune.get_checkpoint())
        context = WorkerContext(
            rank=0,
            world_size=1,
            most_workers=1,
            threads=1,
            folder=folder,
            report=trial.report,
            keep=_keep_nothing,
            prepare=lambda model: model,
        )
        searched_model(plan.model).train_fn({"data": str(folder)}, context)
    except Exception as error:  # one trial's failure is a line of the search, whatever it is
        trial.fail(error)


def _keep_nothing(*_: object) -> None:
    """Leave the result where it is: the trial's folder holds its history and checkpoints."""


def trial_number(trial_id: str) -> int:
    """Return a trial's number from the identifier that Ray Tune made of it."""
    return int(trial_id.rpartition("_")[2])


def _prepared(trial: _Trial, checkpoint: Any) -> _Trial:
    """Fill the trial's folder with data, recipe and the checkpoint to go on from."""
    from ml.configuration import to_json
    from ml.training.search_space import replaced
    from ml.training.takeover import take_over

    plan, folder = trial.plan, trial.folder
    recipe_file = searched_model(plan.model).recipe_file
    for path in plan.data.iterdir():
        link = folder / path.name
        if path.name not in (recipe_file, _CHECKPOINTS) and not link.exists():
            link.symlink_to(path.resolve())
    values = dict(trial.values)
    if plan.shares:
        # The population decides who goes on: a member that stopped by itself would be waited for.
        values["training.patience"] = trial.recipe.training.epochs
    recipe = replaced(trial.recipe, values)
    (folder / recipe_file).write_text(to_json(recipe))
    trial = replace(trial, recipe=recipe)
    if checkpoint is None:
        return trial if _has_failed(folder) else _begun_anew(trial)
    with checkpoint.as_directory() as source:
        origin = json.loads((Path(source) / _ORIGIN_FILE).read_text())
        decay = recipe.training.weight_decay
        take_over(Path(source), folder / _CHECKPOINTS, weight_decay=decay)
    if origin["trial"] == trial.number and _has_failed(folder):
        return trial
    _keep_lines(folder, origin["reports"])
    (folder / FAILURE_FILE).unlink(missing_ok=True)
    return replace(trial, taken_from=None if origin["trial"] == trial.number else origin["trial"])


def _has_failed(folder: Path) -> bool:
    return (folder / FAILURE_FILE).exists()


def _begun_anew(trial: _Trial) -> _Trial:
    """Forget what a process that was lost left behind: Ray Tune starts its trial once more."""
    shutil.rmtree(trial.folder / _CHECKPOINTS, ignore_errors=True)
    _keep_lines(trial.folder, 0)
    return trial


def _keep_lines(folder: Path, count: int) -> None:
    """Cut the history to what Ray Tune knows of it; a lost process may have written more."""
    path = folder / HISTORY_FILE
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:count]), encoding="utf-8")
