"""Keep what evaluations and trainings found as one JSON file each, for the report and the run."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.settings import Settings


def save_result(settings: Settings, name: str, result: Mapping[str, Any]) -> Path:
    """Write a result whole or not at all; figures that are not finite become null.

    Args:
        settings: Where the data home is.
        name: Name of the asset that found it.
        result: JSON-like content.
    """
    path = result_path(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(json.dumps(_finite(result), indent=1, allow_nan=False))
    draft.replace(path)
    return path


def load_result(settings: Settings, name: str) -> dict[str, Any] | None:
    """Return the result of an asset, or None if it has none in this data home."""
    path = result_path(settings, name)
    return json.loads(path.read_text()) if path.exists() else None


def remove_result(settings: Settings, name: str) -> None:
    """Forget the result of an asset that the source can no longer feed."""
    result_path(settings, name).unlink(missing_ok=True)


def result_path(settings: Settings, name: str) -> Path:
    """Return the file of an asset's result, whether it is there or not."""
    return settings.workspace / "results" / f"{name}.json"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
