"""The log of re-fits: one JSON line each, beside the manifest of the data home's source."""

import json
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path

from infra.settings import Settings
from pipelines.refits import CutRefit

_NAME = "cut_refits.jsonl"


def load_refits(settings: Settings) -> tuple[CutRefit, ...]:
    """Return the re-fits so far, oldest first; none in a new data home."""
    path = _path(settings)
    lines = path.read_text().splitlines() if path.exists() else []
    return tuple(_refit(json.loads(line)) for line in lines)


def append_refit(settings: Settings, refit: CutRefit) -> None:
    """Add a re-fit to the log; the file is replaced whole, so a crash leaves the old or the new."""
    path = _path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    line = json.dumps(asdict(refit), default=lambda value: value.isoformat())
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{before}{line}\n")
    fresh.replace(path)


def _path(settings: Settings) -> Path:
    return settings.workspace / _NAME


def _refit(fields: dict[str, str]) -> CutRefit:
    return CutRefit(
        first_day=date.fromisoformat(fields["first_day"]),
        last_day=date.fromisoformat(fields["last_day"]),
        arrived_before=date.fromisoformat(fields["arrived_before"]),
        requested_at=datetime.fromisoformat(fields["requested_at"]),
        why=fields["why"],
    )
