"""What a trial writes down: its history, a line of JSON for each epoch, and why it failed.

A line is added without a touch of those before it. What a full disk or a lost process left of half
a line is cut off by the next one, and is no line for `infra.training_log.read_lines`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FAILURE_FILE, TRACEBACK_FILE = "failure.txt", "traceback.txt"


def add_line(path: Path, line: Mapping[str, Any]) -> int:
    """Add a line; return how many there are.

    Raises:
        OSError: If there is no room for it; the lines before it stay.
    """
    before = _text(path)
    whole = before[: before.rfind(b"\n") + 1]
    if len(whole) < len(before):
        os.truncate(path, len(whole))
    with path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
    return whole.count(b"\n") + 1


def cut_lines(path: Path, count: int) -> None:
    """Keep the first lines only; there may be fewer, or no file."""
    before = _text(path)
    kept = b"".join(before.splitlines(keepends=True)[:count])
    if len(kept) < len(before):
        os.truncate(path, len(kept))


def _text(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
