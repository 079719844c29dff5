"""What a Ray Tune worker runs: one trial of a search, trained by the model's own `fit`.

A trial has a folder of its own: links to the prepared data, its recipe, its checkpoints, and
`history.jsonl` with a line for each epoch. When population-based training gives it another trial's
checkpoint, the loop finds that one as the newest of the folder and goes on from it.
"""

import json
import math
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.json_lines import append_line, cut_lines
from infra.search_kept import FAILURE_FILE, TRACEBACK_FILE, mark_finished, unmark
from infra.searched_models import prepared_recipe, searched_model
from infra.training_log import HISTORY_FILE
from infra.worker_loop import WorkerContext

SCORE, TIME = "score", "reports"
_ORIGIN_FILE = "trial.json"
_BEGUN_FILE = "begun.json"
_LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """Say what all trials of a search have in common.

    Attributes:
        model: Name of the model.
        data: The prepared folder.
        folder: Where the trials' folders go.
        fields: Paths of the recipe's fields that the trials change.
        numbers: The trials that run, in the order in which Ray Tune is told of them.
        shares: Whether trials go on from each other's checkpoints.
        step_batches: Batches of a step, as many as the training has workers.
        gpus: Accelerators of a trial; 0 trains on a processor.
        identity: What decides how a trial goes, beside its values.
    """

    model: str
    data: Path
    folder: Path
    fields: tuple[str, ...]
    numbers: tuple[int, ...]
    shares: bool
    step_batches: int
    gpus: int
    identity: str

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / f"trial-{number:03d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial between a start and a stop.

    Attributes:
        plan: What it has in common with the others.
        number: Its own.
        values: Those in force.
        recipe: The whole recipe; with the values once its folder is prepared.
        taken_from: Trial whose checkpoint it goes on from, or None.
    """

    plan: TrialPlan
    number: int
    values: dict[str, float]
    recipe: Any
    taken_from: int | None

    @property
    def folder(self) -> Path:
        """Return its folder."""
        return self.plan.trial_folder(self.number)

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Write the line of an epoch and tell Ray Tune, which may stop the trial here."""
        from ray import tune

        score = float(metrics.get(self.recipe.training.monitor, math.inf))
        score = math.inf if math.isnan(score) else score
        own = {"values": self.values, "taken_from": self.taken_from}
        line = {"score": score, "metrics": dict(metrics), **own}
        reports = append_line(self.folder / HISTORY_FILE, line)
        if reports >= self.recipe.training.epochs:
            self.finish()
        kept = None
        if checkpoint is not None and self.plan.shares:
            origin = {"trial": self.number, "reports": reports}
            (checkpoint / _ORIGIN_FILE).write_text(json.dumps(origin))
            kept = tune.Checkpoint.from_directory(str(checkpoint))
        tune.report({SCORE: score, TIME: reports}, checkpoint=kept)

    def finish(self) -> None:
        """Note that the trial need not run again."""
        mark_finished(self.folder, self.plan.identity, self.values)

    def note_failure(self, error: Exception) -> None:
        """Keep the reason, in a line and whole."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
        (self.folder / FAILURE_FILE).write_text(reason, encoding="utf-8")
        whole = "".join(traceback.format_exception(error))
        (self.folder / TRACEBACK_FILE).write_text(whole, encoding="utf-8")

    def stay_failed(self) -> None:
        """Score as the worst.

        A population waits for each member: one that failed keeps its place until a better one's
        checkpoint is given to it, or the epochs are over.
        """
        self.report({}, None)
        while self.plan.shares:
            self.report({}, None)


def run_trial(config: Mapping[str, float], *, plan: TrialPlan) -> None:
    """Train one trial, from its start or from the checkpoint that Ray Tune hands over.

    It is one worker that takes the steps of the training's workers: a step has the batches of all
    of them, one after the other. The retriever's batch is one for all workers, which share it out,
    so its one worker has the whole of it, and `step_batches` no say.

    Args:
        config: Values of the plan's fields.
        plan: What the trials have in common.
    """
    import torch
    from ray import tune

    torch.set_num_threads(1)
    number = plan.numbers[trial_number(tune.get_context().get_trial_id())]
    values = {field: float(config[field]) for field in plan.fields}
    folder = plan.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = prepared_recipe(plan.model, plan.data)
    trial = Trial(plan=plan, number=number, values=values, recipe=recipe, taken_from=None)
    try:
        begun = prepared(trial, tune.get_checkpoint())
        if begun is not None:
            trial = begun
            searched_model(plan.model).train_fn({"data": str(folder)}, _context(trial))
            trial.finish()
            return
    except Exception as error:  # one trial's failure is a line of the search, whatever it is
        trial.note_failure(error)
    trial.stay_failed()


def _context(trial: Trial) -> WorkerContext:
    return WorkerContext(
        rank=0,
        world_size=1,
        most_workers=trial.plan.step_batches,
        threads=1,
        folder=trial.folder,
        report=trial.report,
        keep=_keep_nothing,
        prepare=_on_own_device,
    )


def _on_own_device(model: Any) -> Any:
    """Move a model to the accelerator that Ray gave to this process, if it gave one."""
    import ray

    return model.to("cuda" if ray.get_gpu_ids() else "cpu")


def _keep_nothing(*_: object) -> None:
    """Leave the result where it is: the trial's folder holds its history and checkpoints."""


def trial_number(trial_id: str) -> int:
    """Return a trial's place among those that run, from the identifier that Ray Tune made of it."""
    return int(trial_id.rpartition("_")[2])


def prepared(trial: Trial, checkpoint: Any) -> Trial | None:
    """Fill the trial's folder with data, recipe and the checkpoint to go on from.

    Returns:
        The trial, or None if it has failed, and was given nothing since that it could go on from.
    """
    from ml.training.checkpoint import CHECKPOINTS_FOLDER
    from ml.training.takeover import take_over

    folder, has_failed = trial.folder, (trial.folder / FAILURE_FILE).exists()
    if checkpoint is None:
        # Ray Tune starts a trial once more whose process was lost; one that failed would again.
        return None if has_failed else _begun_anew(trial)
    begun = json.dumps({"checkpoint": str(checkpoint.path), "values": trial.values})
    is_known = begun == _text(folder / _BEGUN_FILE)
    # Who gave the checkpoint keeps the newest only, and a member may be a failed one for long.
    if has_failed and (is_known or not Path(checkpoint.path).is_dir()):
        return None
    trial = _filled(trial)
    with checkpoint.as_directory() as source:
        origin = json.loads((Path(source) / _ORIGIN_FILE).read_text())
        is_own = origin["trial"] == trial.number
        if has_failed and is_own:
            return None
        decay = trial.recipe.training.weight_decay
        take_over(Path(source), folder / CHECKPOINTS_FOLDER, weight_decay=decay)
    _forget(folder, lines=origin["reports"])
    (folder / _BEGUN_FILE).write_text(begun, encoding="utf-8")
    return replace(trial, taken_from=None if is_own else origin["trial"])


def _filled(trial: Trial) -> Trial:
    """Link the data, and write the recipe with the trial's values; return the trial with it."""
    from ml.configuration import to_json
    from ml.training.checkpoint import CHECKPOINTS_FOLDER
    from ml.training.search_space import replaced

    plan, folder = trial.plan, trial.folder
    recipe_file = searched_model(plan.model).recipe_file
    for path in plan.data.iterdir():
        link = folder / path.name
        if path.name not in (recipe_file, CHECKPOINTS_FOLDER) and not link.exists():
            link.symlink_to(path.resolve())
    values = dict(trial.values)
    if plan.shares:
        # The population decides who goes on: a member that stopped by itself would be waited for.
        values["training.patience"] = trial.recipe.training.epochs
    recipe = replaced(trial.recipe, values)
    (folder / recipe_file).write_text(to_json(recipe))
    return replace(trial, recipe=recipe)


def _begun_anew(trial: Trial) -> Trial:
    """Forget what a process that was lost left behind."""
    from ml.training.checkpoint import CHECKPOINTS_FOLDER

    shutil.rmtree(trial.folder / CHECKPOINTS_FOLDER, ignore_errors=True)
    _forget(trial.folder, lines=0)
    return _filled(trial)


def _forget(folder: Path, *, lines: int) -> None:
    """Keep what Ray Tune knows of: a process that was lost may have written more."""
    cut_lines(folder / HISTORY_FILE, lines)
    unmark(folder)
    for name in (FAILURE_FILE, TRACEBACK_FILE):
        (folder / name).unlink(missing_ok=True)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
