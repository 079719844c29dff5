"""Keep a search: nested MLflow runs, a table for people, and the best values for a training."""

import math
from collections.abc import Mapping
from typing import Any

from infra.registry import Registry
from infra.run_log import TrainingRun
from infra.search import SearchConfig
from infra.search_result import SearchResult, TrialRecord


def log_search(
    registry: Registry,
    config: SearchConfig,
    result: SearchResult,
    *,
    recipe: Mapping[str, Any],
    data_versions: Mapping[str, int],
) -> str:
    """Write a run for the search and, under it, one for each trial with its metrics per epoch.

    Args:
        registry: Where runs go.
        config: What was searched.
        result: What was found.
        recipe: The recipe that the trials changed, as plain values.
        data_versions: Table name to the Delta version that was read.

    Returns:
        The search's run.
    """
    tags = {"search": config.model, "method": config.method}
    asked = {name: getattr(config, name) for name in ("trials", "method", "seed", "step_batches")}
    failed = sum(trial.failure is not None for trial in result.trials)
    parent = registry.log_training(
        TrainingRun(
            name=f"search of {config.model}",
            config={
                "search": {**asked, "space": _ranges(result), "best": result.best_values},
                **recipe,
            },
            metrics={result.monitor: result.best.score, "failed_trials": failed},
            data_versions=data_versions,
            tags=tags,
        )
    )
    for trial in result.trials:
        registry.log_training(
            TrainingRun(
                name=f"{config.model} trial {trial.number}",
                config=trial.values,
                metrics={} if trial.best is None else {f"best_{result.monitor}": trial.score},
                curves=_curves(trial),
                data_versions=data_versions,
                tags=tags,
                files=[] if trial.traceback is None else [trial.traceback],
                parent=parent,
                failure=trial.failure,
            )
        )
    return parent


def search_figures(result: SearchResult) -> dict[str, Any]:
    """Return a search as JSON-like content: the best values, and a row for each trial."""
    return {
        "monitor": result.monitor,
        "space": _ranges(result),
        "notes": list(result.notes),
        "best": {
            "trial": result.best.number,
            "score": result.best.score,
            "overrides": result.best_values,
        },
        "trials": [
            {
                "trial": trial.number,
                "score": trial.score if math.isfinite(trial.score) else None,
                "epochs": len(trial.history),
                "values": trial.best["values"] if trial.best else trial.values,
                "taken_from": [line["taken_from"] for line in trial.history],
                "failure": trial.failure,
                "traceback": None if trial.traceback is None else str(trial.traceback),
                "kept": trial.is_kept,
            }
            for trial in result.trials
        ],
    }


def _ranges(result: SearchResult) -> dict[str, dict[str, Any]]:
    return {
        each.field: {"low": each.low, "high": each.high, "log": each.log} for each in result.space
    }


def _curves(trial: TrialRecord) -> dict[str, list[tuple[int, float]]]:
    """Return each metric, and each value in force, by epoch."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for epoch, line in enumerate(trial.history):
        for name, value in {**line["metrics"], **line["values"]}.items():
            if isinstance(value, int | float):
                curves.setdefault(name, []).append((epoch, float(value)))
    return curves
