"""Keep what was measured, so that a benchmark that died goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_MEASURED = (
    "tests/benchmarks/tables*.py",
    "pipelines/*.py",
    "infra/spark.py",
    "infra/lakehouse.py",
)


class Cells:
    """Hold the results of one run by key, on the disk.

    Results of other code than today's are not taken over, nor those of a run that was finished.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        """Open the results of an unfinished run of this very code, or begin a new one.

        Args:
            path: JSON file of the results.
            fresh: Whether to begin anew in any case.
        """
        self._path = path
        self._code = code_fingerprint()
        self._cells: dict[str, dict[str, Any]] = {}
        if not fresh and path.exists():
            kept = json.loads(path.read_text())
            if kept["code"] == self._code and not kept["finished"]:
                self._cells = kept["cells"]

    def __contains__(self, key: str) -> bool:
        """Return whether a result is there."""
        return key in self._cells

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return a result.

        Raises:
            KeyError: If it is not there.
        """
        return self._cells[key]

    def put(self, key: str, cell: Mapping[str, Any]) -> None:
        """Keep a result."""
        self._cells[key] = dict(cell)
        self._save(finished=False)

    def finish(self) -> None:
        """Say that the run is whole: the next one begins anew."""
        self._save(finished=True)

    def _save(self, *, finished: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"code": self._code, "finished": finished, "cells": self._cells})
        partial = self._path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._path)


def code_fingerprint() -> str:
    """Return a digest of the sources that the results depend on."""
    digest = hashlib.sha256()
    for pattern in _MEASURED:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
