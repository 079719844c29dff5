"""Write one training into an MLflow run."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE_TAG = "table."
_PARENT_TAG, _FAILURE_TAG = "mlflow.parentRunId", "failure"
_METRICS_PER_CALL, _PARAMS_PER_CALL, _LONGEST_PARAM = 1000, 100, 6000


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """What is kept of a training.

    Attributes:
        name: Name of the run.
        config: The resolved configuration, nested; logged as parameters and as an artefact.
        metrics: Final numbers; those that are not finite are left out.
        curves: Name to (step, value) pairs.
        data_versions: Table name to the Delta version that was read.
        tags: Anything else worth finding it by.
        files: Folders and files to keep with the run.
        parent: Run that this one is shown under, or None.
        failure: Why the training failed, or None; the run's status says so too.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    data_versions: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    parent: str | None = None
    failure: str | None = None


def run_tags(run: TrainingRun) -> dict[str, str]:
    """Return the tags of a run: its own, its parent, and each table's version that was read."""
    versions = {f"{TABLE_TAG}{name}": str(version) for name, version in run.data_versions.items()}
    parent = {_PARENT_TAG: run.parent} if run.parent else {}
    failure = {_FAILURE_TAG: run.failure} if run.failure else {}
    return {**run.tags, **versions, **parent, **failure}


def write_run(client: Any, run_id: str, run: TrainingRun) -> None:
    """Write parameters, metrics, curves, the configuration, table versions and files.

    Args:
        client: MLflow's client.
        run_id: An open run.
        run: What to keep.
    """
    _write_params(client, run_id, run.config)
    _write_metrics(client, run_id, run)
    client.log_dict(run_id, json.loads(json.dumps(run.config, default=str)), "config.json")
    _write_tables(client, run_id, run.data_versions)
    for path in run.files:
        if path.is_dir():
            client.log_artifacts(run_id, str(path), path.name)
        else:
            client.log_artifact(run_id, str(path))


def _write_params(client: Any, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, value[:_LONGEST_PARAM]) for name, value in _flat(config)]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_CALL])


def _write_metrics(client: Any, run_id: str, run: TrainingRun) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [(name, 0, value) for name, value in run.metrics.items()]
    points += [(n, step, value) for n, curve in run.curves.items() for step, value in curve]
    metrics = [
        Metric(name, float(value), now, int(step))
        for name, step, value in points
        if isinstance(value, (int, float)) and math.isfinite(value)
    ]
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL])


def _write_tables(client: Any, run_id: str, versions: Mapping[str, int]) -> None:
    from mlflow.entities import Dataset, DatasetInput

    inputs = [
        DatasetInput(
            Dataset(
                name=name,
                digest=f"version-{version}",
                source_type="delta_table",
                source=json.dumps({"table": name, "version": version}),
            )
        )
        for name, version in versions.items()
    ]
    if inputs:
        client.log_inputs(run_id, inputs)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs
