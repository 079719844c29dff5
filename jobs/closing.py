"""What a run prints last: rows, rejected rows, models, headline metrics, paths, one JSON line."""

import json
import sys
from typing import Any, cast

import dagster as dg

from infra.platform import Platform
from infra.results import load_result
from infra.settings import Settings
from infra.suppression import load_list
from jobs.retraining import open_requests

_RESULTS = (
    "semantic_ids",
    "ranking_evaluation",
    "retrieval_evaluation",
    "optimized_prompt_ranker",
)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return one line for the first step that failed: its name and the innermost message."""
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        text = " ".join((error.message if error else "unknown error").split())
        return f"step {event.step_key} failed: {text.removeprefix('infra.errors.')}"
    failed = [
        f"{data.asset_key.to_user_string()}:{data.check_name} ({data.description})"
        for data in (e.asset_check_evaluation_data for e in result.all_events if _is_check(e))
        if not data.passed and data.severity == dg.AssetCheckSeverity.ERROR
    ]
    return f"blocked by checks: {', '.join(failed)}" if failed else "the run failed"


def print_closing_table(
    result: dg.ExecuteInProcessResult, *, settings: Settings, seconds: float, peak_bytes: int
) -> None:
    """Print the closing table and, last, the JSON line that tools read."""
    rows = _rows(result)
    models = _models()
    metrics = _headlines(settings)
    report = settings.reports / "report.html"
    lines = [
        *_table("rows", {name: f"{count:,}" for name, count in rows.items()}),
        *_table("models", {n: f"version {m['version']}, {m['alias']}" for n, m in models.items()}),
        *_table("metrics", {name: _figure(value) for name, value in metrics.items()}),
        *_table("skipped", _skipped(result)),
        *_table("to do after an erasure", _erasures(settings)),
        *_table(
            "where",
            {
                "report": str(report),
                "data docs": str(settings.reports / "data_docs" / "index.html"),
                "web UIs": "make ui",
                "wall time": f"{seconds:.0f} s",
                "peak memory": f"{peak_bytes / 2**30:.2f} GiB",
            },
        ),
        json.dumps(
            {
                "run": settings.source,
                "seconds": round(seconds, 1),
                "peak_bytes": peak_bytes,
                "rows": rows,
                "models": models,
                "metrics": metrics,
                "report": str(report),
            }
        ),
    ]
    sys.stdout.write("\n".join(["", *lines, ""]))


def _is_check(event: dg.DagsterEvent) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION"


def _rows(result: dg.ExecuteInProcessResult) -> dict[str, int]:
    rows = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        count = materialization.metadata.get("dagster/row_count")
        if count is not None:
            rows[materialization.asset_key.to_user_string()] = int(cast("int", count.value))
    return rows


def _models() -> dict[str, dict[str, Any]]:
    registry = Platform().registry()
    found = {name: registry.version(name, alias="candidate") for name in registry.models()}
    return {
        name: {"version": version.version, "alias": ", ".join(version.aliases)}
        for name, version in found.items()
    }


def _erasures(settings: Settings) -> dict[str, str]:
    """Return the models that must be trained again, and whether erasures were interrupted."""
    found = {
        f"{name} {version}": "train again: a user of its training data was erased"
        for name, version in open_requests(Platform())
    }
    users = load_list(settings)
    if users is not None and users.unfinished:
        found["make forget"] = f"{users.unfinished} erasures were interrupted: repeat them"
    return found


def _skipped(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    reasons = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_OBSERVATION":
            observation = event.asset_observation_data.asset_observation
            if reason := observation.metadata.get("skipped"):
                reasons[observation.asset_key.to_user_string()] = str(reason.value)
    return reasons


def _headlines(settings: Settings) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name in _RESULTS:
        metrics |= (load_result(settings, name) or {}).get("headline", {})
    return metrics


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(title: str, cells: dict[str, str]) -> list[str]:
    if not cells:
        return []
    width = max(map(len, cells))
    return [title, *(f"  {name:<{width}}  {value}" for name, value in cells.items()), ""]
