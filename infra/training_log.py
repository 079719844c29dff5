"""A training's own records: what rank 0 reported, shown while it runs."""

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HISTORY_FILE = "history.jsonl"
STARTS_FILE = "starts.jsonl"
KEPT_FILE = "kept.json"
_POLL_SECONDS = 1.0
_SHOWN_METRICS = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecord:
    """Hold what rank 0 wrote down.

    Attributes:
        starts: When its function began, each time, in seconds since 1970.
        history: What it kept, else what it reported, oldest first.
        checkpoint: The folder that it kept, else the last one reported; None if there is none.
        metrics: Those of that folder, else those reported last.
    """

    starts: list[float]
    history: list[dict[str, Any]]
    checkpoint: Path | None
    metrics: dict[str, Any]


def read_record(folder: Path) -> TrainingRecord:
    """Read what rank 0 of a training wrote into its folder."""
    starts = [line["time"] for line in read_lines(folder / STARTS_FILE)]
    if (path := folder / KEPT_FILE).exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return TrainingRecord(
            starts=starts,
            history=kept["history"],
            checkpoint=Path(kept["checkpoint"]),
            metrics=kept["metrics"],
        )
    history = read_lines(folder / HISTORY_FILE)
    folders = [entry.pop("_checkpoint") for entry in history]
    saved = [place for place, name in enumerate(folders) if name is not None]
    return TrainingRecord(
        starts=starts,
        history=history,
        checkpoint=Path(folders[saved[-1]]) if saved else None,
        metrics=history[saved[-1] if saved else -1] if history else {},
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a JSON-lines file; there are none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # A writer that was killed may have left half a line.
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


class ProgressLog:
    """Log each report of a running training, as rank 0 writes it down."""

    def __init__(self, folder: Path, *, name: str) -> None:
        """Watch a training's folder.

        Args:
            folder: The training's folder.
            name: Shown before each line.
        """
        self._path = folder / HISTORY_FILE
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        """Start to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to watch, after the last line."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        position = 0
        while True:
            is_last = self._stop.wait(_POLL_SECONDS)
            if self._path.exists():
                with self._path.open(encoding="utf-8") as history:
                    history.seek(position)
                    for line in history:
                        _log.info("%s: %s", self._name, _brief(json.loads(line)))
                    position = history.tell()
            if is_last:
                return


def _brief(entry: dict[str, Any]) -> str:
    numbers = [(name, value) for name, value in entry.items() if isinstance(value, (int, float))]
    shown = [pair for pair in numbers if not pair[0].startswith("_")][:_SHOWN_METRICS]
    return ", ".join(f"{name} {value:.4g}" for name, value in shown)
