"""One writer at a time on a local Delta table.

Delta's log store for local paths can acknowledge two commits of the same version when two
processes race, and one of them is lost. The lock covers every writer that goes through the
lakehouse, in this process or another; it knows nothing of writers that do not.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError

if TYPE_CHECKING:
    from pipelines.contract import Table

_POLL_SECONDS = 0.05


def table_lock(root: Path, table: "Table") -> AbstractContextManager[int]:
    """Hold the commit lock of a table of the lake under a root."""
    return commit_lock(root / "_locks" / f"{table.group}.{table.name}")


@contextmanager
def commit_lock(path: Path, *, timeout_seconds: float = 3600.0) -> Iterator[int]:
    """Hold the lock file at a path; the kernel releases it if the process dies.

    Args:
        path: Lock file, created where missing; its folder too.
        timeout_seconds: How long to wait for another writer.

    Yields:
        The moment of the acquisition by the file system's clock, in nanoseconds.

    Raises:
        UserError: If another writer still holds the lock after the time-out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    with path.open("a") as file:
        while not _acquire(file.fileno()):
            if time.monotonic() > deadline:
                raise UserError(
                    f"another run has been writing under {path} for {timeout_seconds:.0f} s",
                    remedy="wait for it or end it",
                )
            time.sleep(_POLL_SECONDS)
        path.touch()
        yield path.stat().st_mtime_ns


def _acquire(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
