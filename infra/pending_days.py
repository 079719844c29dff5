"""Days whose tables an update has still to write: kept until they are written.

An update that was killed leaves its days here, and the next one takes them up: what a table
already holds of them says nothing of the tables behind it.
"""

import json
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from infra.errors import UserError


def load_pending(file: Path) -> tuple[date, ...]:
    """Return the days in order; none where the file is not there.

    Raises:
        UserError: If the file cannot be read.
    """
    if not file.exists():
        return ()
    try:
        return tuple(sorted(map(date.fromisoformat, json.loads(file.read_text()))))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error})",
            remedy="remove it, and say make update SINCE=<first day of the log>",
        ) from error


def save_pending(file: Path, days: Iterable[date]) -> None:
    """Replace the days, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps([day.isoformat() for day in sorted(set(days))]))
    partial.replace(file)
