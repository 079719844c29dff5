"""Which trials of an interrupted search need not run again: those that came to their end.

A trial is the same if its values are, and the recipe, the batches of a step, the prepared folder's
files (by size and time of writing), the code and torch.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.json_lines import read_lines
from infra.searched_models import searched_model
from infra.training_log import HISTORY_FILE

FAILURE_FILE, TRACEBACK_FILE = "failure.txt", "traceback.txt"
_FINISHED_FILE = "finished.json"
_ROOT = Path(__file__).parents[1]
_TRIAL_CODE = "infra.search_trial"


def search_identity(model: str, data: Path, *, step_batches: int, gpus: int) -> str:
    """Return a hash of all that decides how a trial goes, beside its values.

    Args:
        model: Name of the model.
        data: Its prepared folder, whose recipe the trials change.
        step_batches: Batches of a step.
        gpus: Accelerators of a trial.
    """
    from ml.ranking.leaderboard.modules import modules_hash

    files = sorted(path for path in data.rglob("*") if path.is_file())
    facts = {
        "model": model,
        "step_batches": step_batches,
        "gpus": gpus,
        "torch": importlib.metadata.version("torch"),
        "code": [
            modules_hash(searched_model(model).fit_module, root=_ROOT),
            modules_hash(_TRIAL_CODE, root=_ROOT),
        ],
        "files": [
            (str(path.relative_to(data)), path.stat().st_size, path.stat().st_mtime_ns)
            for path in files
        ],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def mark_finished(folder: Path, identity: str, values: Mapping[str, float]) -> None:
    """Note in a trial's folder that it came to its end."""
    (folder / _FINISHED_FILE).write_text(_mark(identity, values), encoding="utf-8")


def unmark(folder: Path) -> None:
    """Take the note away: the trial begins again."""
    (folder / _FINISHED_FILE).unlink(missing_ok=True)


def is_finished(folder: Path, identity: str, values: Mapping[str, float]) -> bool:
    """Return whether a folder holds this very trial, which came to its end without a failure."""
    path = folder / _FINISHED_FILE
    return (
        path.is_file()
        and path.read_text(encoding="utf-8") == _mark(identity, values)
        and not (folder / FAILURE_FILE).exists()
        and bool(read_lines(folder / HISTORY_FILE))
    )


def _mark(identity: str, values: Mapping[str, float]) -> str:
    mark: dict[str, Any] = {"identity": identity, "values": dict(values)}
    return json.dumps(mark, sort_keys=True)
