"""Files of one JSON record a line, which grow while others read them and outlive their writers.

One process writes a file at a time. What a writer that was killed, or a full disk, left of half a
line is not read, and the next record takes its place.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import UserError


def append_line(path: Path, record: Mapping[str, Any]) -> int:
    """Write a record below the others; return how many there are.

    Raises:
        OSError: If there is no room for it; the records before it stay.
    """
    before = _bytes(path)
    whole = before[: before.rfind(b"\n") + 1]
    if len(whole) < len(before):
        os.truncate(path, len(whole))
    with path.open("ab") as file:
        file.write(json.dumps(record).encode() + b"\n")
    return whole.count(b"\n") + 1


def cut_lines(path: Path, count: int) -> None:
    """Keep the first records only; there may be fewer, or no file."""
    before = _bytes(path)
    kept = b"".join(before.splitlines(keepends=True)[:count])
    if len(kept) < len(before):
        os.truncate(path, len(kept))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records; there are none where there is no file.

    Raises:
        UserError: If a whole line is no record.
    """
    lines = _bytes(path).split(b"\n")[:-1]
    return [_record(line, place=f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, *, place: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        raise UserError(f"{place} is no record", remedy="remove that line") from None


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
