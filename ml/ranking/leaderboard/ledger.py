"""The ledger of a leaderboard: JSON lines that are only added to, one per cell, in the repository.

A line that a killed driver left unfinished is overlooked and taken away by the next one.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml.ranking.leaderboard.cells import FAILED, Cell, Line, line_key

_DIGITS = 6


class Ledger:
    """Read and extend the ledger of one source."""

    def __init__(self, path: Path) -> None:
        """Open a ledger; a file that does not exist is an empty one.

        Args:
            path: The JSON lines.

        Raises:
            ValueError: If a line other than an unfinished last one cannot be read.
        """
        self._path = path
        self._lines = _read(path)
        self._keys = {line_key(line) for line in self._lines}

    @property
    def lines(self) -> list[Line]:
        """Return all lines, oldest first."""
        return list(self._lines)

    def has(self, cell: Cell) -> bool:
        """Return whether a cell was measured."""
        return line_key(cell.fields) in self._keys

    def has_failed(self, cell: Cell) -> bool:
        """Return whether a cell was tried, failed, and was not measured later."""
        failed = {**cell.fields, "kind": FAILED, "failed_kind": cell.kind}
        return not self.has(cell) and line_key(failed) in self._keys

    def append(self, line: Mapping[str, Any]) -> Line:
        """Add a line; floats are rounded to six digits, those that are not finite become null.

        Args:
            line: With a `kind`, and what `line_key` needs.

        Returns:
            The line as it was written.

        Raises:
            ValueError: If a cell is measured already: nothing is run twice, and the test split is
                opened once per recipe and seed.
        """
        written = _plain(line)
        key = line_key(written)
        if key in self._keys and written["kind"] != FAILED:
            raise ValueError(
                f"the ledger holds {written['kind']} of {written['recipe']} already: a cell is "
                "never run again for the same data and code"
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            file.truncate(_whole_bytes(self._path))
            file.write((json.dumps(written, allow_nan=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(written)
        self._keys.add(key)
        return written


def _whole_bytes(path: Path) -> int:
    """Return the size of the lines that end."""
    return path.read_bytes().rfind(b"\n") + 1


def _read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    whole = path.read_bytes()[: _whole_bytes(path)]
    lines = []
    for number, text in enumerate(whole.decode("utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            line_key(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {path.name} is no line of a ledger: take the file back from "
                "version control"
            ) from error
        lines.append(line)
    return lines


def _plain(value: Any) -> Any:
    """Return a value as JSON keeps it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
