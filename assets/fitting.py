"""Fit a prepared model on Ray Train, log its run, register it, keep what the report shows."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.pinned_tables import PinnedTables
from infra.platform import Platform
from infra.ray_training import FitPlan, FitResult, fit
from infra.registry import ModelCard, ModelVersion, TrainingRun
from infra.results import save_result

if TYPE_CHECKING:
    import pandas as pd

# Written when a training's data is whole, and removed when its model is registered.
_PREPARED_FILE = "prepared.json"
# Of an elastic training whose recipe says nothing of checkpoints: it goes back to the newest one
# whenever a worker is lost or found.
_ELASTIC_CHECKPOINTS = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Describe a training whose folder is prepared.

    Attributes:
        name: Asset, run and registered model.
        recipe: Name of the recipe.
        config: The resolved recipe as plain values.
        data: The prepared folder.
        tables: Tables that were read, at the versions that they were read at.
        workers: Workers of the run: as many batches make a step.
        code: State of the code that trains it.
        is_elastic: Whether it may go on with fewer workers.
        resumed_from_step: Step of the checkpoint that it goes on from, None from the beginning.
    """

    name: str
    recipe: str
    config: dict[str, Any]
    data: Path
    tables: PinnedTables
    workers: int
    code: str
    is_elastic: bool = True
    resumed_from_step: int | None = None


def data_folder(platform: Platform, name: str) -> Path:
    """Return where a training's prepared data lies, with its checkpoints."""
    return platform.settings().ray_folder / "data" / name


def code_state(module: str) -> str:
    """Return a hash of the code that a module of `ml` runs; comments do not count."""
    import ml
    from ml.ranking.leaderboard.modules import modules_hash

    return modules_hash(module, root=Path(next(iter(ml.__path__))).parent)


def unfinished(training: Training) -> Training | None:
    """Return a training that was prepared, and never came to its end, as it is to go on.

    It is the same training if recipe, configuration, code, the number of workers and the versions
    of all tables are. What else lies in its folder is told of and counts for nothing.

    Args:
        training: What shall be trained.

    Returns:
        The training with the step that it goes on from; None if it has to begin.
    """
    from ml.training.checkpoint import CHECKPOINTS_FOLDER, load_state, newest_checkpoint

    path = training.data / _PREPARED_FILE
    if not path.is_file():
        return None
    checkpoint = newest_checkpoint(training.data / CHECKPOINTS_FOLDER)
    step = None if checkpoint is None else int(load_state(checkpoint)["step"])
    if changed := _changes(path, training):
        if step is not None:
            _log.warning(
                "training %s: the one that stopped at step %d had another %s, so this one "
                "begins anew",
                training.name,
                step,
                " and ".join(changed),
            )
        return None
    return replace(training, resumed_from_step=step)


@contextmanager
def new_data(training: Training) -> Iterator[None]:
    """Empty a training's folder; it counts as prepared when the block ends."""
    shutil.rmtree(training.data, ignore_errors=True)
    yield
    draft = training.data / f".{_PREPARED_FILE}.{os.getpid()}"
    draft.write_text(json.dumps(_identity(training)))
    draft.replace(training.data / _PREPARED_FILE)


def _changes(path: Path, training: Training) -> list[str]:
    """Return what distinguishes a training from the one that a file tells of."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return ["record, which is damaged"]
    return [name for name, value in _identity(training).items() if found.get(name) != value]


def _identity(training: Training) -> dict[str, Any]:
    identity = {
        "recipe": training.recipe,
        "config": training.config,
        "table versions": training.tables.versions,
        "number of workers": training.workers,
        "code": training.code,
    }
    return json.loads(json.dumps(identity))


def run_training(platform: Platform, training: Training, *, train_fn: Any) -> FitResult:
    """Fit on the configured number of workers."""
    settings = platform.settings()
    platform.start_ray()
    plan = FitPlan(
        name=training.name,
        folder=settings.ray_folder,
        workers=training.workers,
        least_workers=least_workers(training, wanted=settings.min_workers),
    )
    if training.resumed_from_step is not None:
        _log.info("training %s goes on from step %d", training.name, training.resumed_from_step)
    config: dict[str, Any] = {"data": str(training.data)}
    if plan.is_elastic:
        config["checkpoints_per_epoch"] = _ELASTIC_CHECKPOINTS
    return fit(train_fn, config, plan)


def least_workers(training: Training, *, wanted: int | None) -> int | None:
    """Return with how many workers a training may go on, None for all of them."""
    if wanted is None or wanted == training.workers:
        return None
    if not training.is_elastic:
        _log.warning(
            "training %s needs all of its %d workers: RANKLAKE_MIN_WORKERS is not for it",
            training.name,
            training.workers,
        )
        return None
    is_split = training.config.get("training", {}).get("sharding", "none") != "none"
    return max(wanted, min(2, training.workers)) if is_split else wanted


def register_training(
    platform: Platform,
    training: Training,
    fitted: FitResult,
    *,
    model: Path,
    example: "pd.DataFrame",
) -> ModelVersion:
    """Log the run with its curves, register the exported model as candidate, keep the result."""
    result = training_result(training, fitted, model=model)
    registry = platform.registry()
    run_id = registry.log_training(
        TrainingRun(
            name=training.name,
            config={"recipe": training.recipe, **training.config},
            metrics={k: v for k, v in fitted.metrics.items() if isinstance(v, int | float)},
            curves=_curves(fitted, result),
            data_versions=training.tables.versions,
            tags={
                "recipe": training.recipe,
                "source": platform.manifest().source,
                "code": training.code,
                "resumed_from_step": str(training.resumed_from_step or 0),
            },
        )
    )
    save_result(platform.settings(), training.name, result)
    card = ModelCard(
        name=training.name,
        kind=training.name,
        input_example=example,
        metrics={"validation_ne": fitted.metrics["validation_ne"]}
        if "validation_ne" in fitted.metrics
        else {},
        tags={"recipe": training.recipe, "source": platform.manifest().source},
    )
    version = registry.register(model, card, run_id=run_id)
    (training.data / _PREPARED_FILE).unlink(missing_ok=True)
    return version


def training_result(training: Training, fitted: FitResult, *, model: Path) -> dict[str, Any]:
    """Return what the report shows of a training: times, evidence of the syncs, traces."""
    syncs = _syncs(fitted)
    traces: dict[str, dict[str, dict[str, list[float]]]] = {}
    for sync in syncs:
        for rank, rates in enumerate(sync["learning_rates"]):
            for group, rate in zip(_groups(fitted), rates, strict=True):
                replicas = traces.setdefault(group, {})
                trace = replicas.setdefault(str(rank), {"steps": [], "rates": []})
                trace["steps"].append(sync["step"])
                trace["rates"].append(rate)
    return {
        "recipe": training.recipe,
        "parameters": _num_parameters(model),
        "seconds": fitted.seconds,
        "startup_seconds": fitted.startup_seconds,
        "resumed_from_step": training.resumed_from_step,
        "history": fitted.history,
        "rate_traces": traces,
        "difference_before": max((s["difference_before"] for s in syncs), default=0.0),
        "difference_after": max((s["difference_after"] for s in syncs), default=0.0),
    }


def _curves(fitted: FitResult, result: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in fitted.history:
        step = int(entry.get("step", 0))
        for name, value in entry.items():
            if name not in ("step", "epoch") and isinstance(value, int | float):
                curves.setdefault(name, []).append((step, float(value)))
    for group, replicas in result["rate_traces"].items():
        for rank, trace in replicas.items():
            points = zip(trace["steps"], trace["rates"], strict=True)
            name = f"learning_rate_trace_{group}_replica_{rank}"
            curves[name] = [(int(s), r) for s, r in points]
    return curves


def _syncs(fitted: FitResult) -> list[dict[str, Any]]:
    if fitted.checkpoint is None:
        return []
    return json.loads((fitted.checkpoint / "state.json").read_text()).get("syncs", [])


def _groups(fitted: FitResult) -> list[str]:
    """Return the names of the optimiser's parameter groups."""
    assert fitted.checkpoint is not None, "there are syncs, so there is a checkpoint"
    groups = json.loads((fitted.checkpoint / "optimizer.json").read_text())
    return [group["name"] for group in groups]


def _num_parameters(model: Path) -> int:
    from safetensors import safe_open

    total = 0
    for path in model.rglob("*.safetensors"):
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total
