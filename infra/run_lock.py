"""One lock per source folder of a data home: whoever writes shares it, an erasure has it alone.

It is a `flock`, which the kernel releases when its holder dies. Beside it each holder keeps a note
of what it is, locked as well, so that notes of the dead can be told from those of the living.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from infra.errors import UserError

LOCK_FILE, NOTES_FOLDER = "run.lock", "run.lock.holders"
_NOTE = ".note"
_POLL_SECONDS = 0.2


@contextmanager
def run_lock(
    workspace: Path, *, what: str, alone: bool = False, wait_seconds: float = 0.0
) -> Iterator[None]:
    """Hold the lock of a source folder.

    Args:
        workspace: The source's folder in the data home, made where missing.
        what: What is done under the lock, as the others are to read it.
        alone: Whether nobody else may hold it.
        wait_seconds: How long to wait for the others.

    Raises:
        UserError: If others still hold it; names them.
    """
    notes = workspace / NOTES_FOLDER
    notes.mkdir(parents=True, exist_ok=True)
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    deadline = time.monotonic() + wait_seconds
    with (workspace / LOCK_FILE).open("a") as file:
        while not _is_taken(file, how):
            if time.monotonic() >= deadline:
                raise _is_held(workspace, wait_seconds=wait_seconds)
            time.sleep(_POLL_SECONDS)
        with _note(notes, what=what):
            yield


def holders(workspace: Path) -> list[str]:
    """Return who holds the lock of a source folder, a line for each process, oldest first.

    Notes of those who died are removed.
    """
    found: dict[str, str] = {}
    for note in sorted((workspace / NOTES_FOLDER).glob(f"*{_NOTE}")):
        with suppress(FileNotFoundError), note.open() as file:  # its holder may have ended
            if _is_taken(file, fcntl.LOCK_SH):
                note.unlink()
            else:
                found.setdefault(note.stem.rpartition("-")[2], file.read())
    return list(found.values())


@contextmanager
def _note(folder: Path, *, what: str) -> Iterator[None]:
    """Keep a locked note; it gets its name when it can be read, and is locked by then."""
    now = datetime.now(UTC)
    note = folder / f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}{_NOTE}"
    draft = note.with_suffix(".draft")
    with draft.open("w") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        file.write(f"{what} (process {os.getpid()}, since {now:%Y-%m-%d %H:%M:%S} UTC)")
        file.flush()
        draft.rename(note)
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def _is_held(workspace: Path, *, wait_seconds: float) -> UserError:
    names = ", ".join(holders(workspace)) or "another process"
    waited = f" after {wait_seconds:.0f} s" if wait_seconds else ""
    return UserError(
        f"the data in {workspace} is in use{waited} by {names}",
        remedy="wait for that to end, then repeat the command",
    )


def _is_taken(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file.fileno(), how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
