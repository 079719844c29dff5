"""One writer at a time on a local Delta table; on an object store see infra/lease.py.

Delta's log store for local paths can acknowledge two commits of the same version when two
processes race, and one of them is lost. The lock covers every writer that goes through the
lakehouse, in this process or another; it knows nothing of writers that do not.

A driver is two processes. If Python is killed, its half of the lock is free at once, while the
JVM may still be writing; so the JVM holds a lock of its own, and whoever comes next waits for
both. What a writer that died has left is found by the time at which it began, which stays in the
lock file until a writer ends well.

Over Spark Connect the driver is the server's JVM, which cannot hold a lock of ours and may go on
after the client has died. So a note lies beside the lock file while such a write is under way; a
writer that finds one left by another stops, and says what to look at.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from infra.errors import DriverLostError, UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 3600.0


def is_remote(spark: "SparkSession") -> bool:
    """Return whether a session is one of Spark Connect, whose driver is another process."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


@contextmanager
def commit_lock(path: Path, *, timeout_seconds: float = _PATIENCE_SECONDS) -> Iterator[int]:
    """Hold the lock file at a path; the kernel releases it if the process dies.

    Args:
        path: Lock file, created where missing; its folder too.
        timeout_seconds: How long to wait for another writer.

    Yields:
        The moment since which files may be there that no commit names, by the file system's
        clock in nanoseconds: of the acquisition, or of that by a writer that did not end well.

    Raises:
        UserError: If another writer still holds the lock after the time-out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    with path.open("a+") as file, _jvm_file(path).open("a") as jvm_file:
        _wait(lambda: _flock(file), path=path, deadline=deadline)
        _wait(lambda: _is_unlocked(jvm_file), path=path, deadline=deadline)
        _refuse_unfinished(_note_file(path))
        path.touch()
        began_ns = path.stat().st_mtime_ns
        file.seek(0)
        left = file.read().strip()
        if not left:
            file.write(str(began_ns))
            file.flush()
        yield int(left or began_ns)
        file.truncate(0)


@contextmanager
def jvm_lock(spark: "SparkSession", path: Path) -> Iterator[None]:
    """Let the session's JVM hold its half of a lock; must be called under `commit_lock`.

    Over Spark Connect a note stands for it.

    Args:
        spark: The session that will write.
        path: The lock file that was given to `commit_lock`.
    """
    if is_remote(spark):
        with _remote_note(_note_file(path), server=spark.client.host):
            yield
        return
    jvm: Any = spark.sparkContext._jvm
    file = jvm.java.io.RandomAccessFile(str(_jvm_file(path)), "rw")
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        _wait(lambda: file.getChannel().tryLock() is not None, path=path, deadline=deadline)
        yield
    finally:
        # A JVM that has died holds nothing any more.
        with suppress(Py4JError, OSError):
            file.close()


@contextmanager
def _remote_note(note: Path, *, server: str) -> Iterator[None]:
    """Leave a note unless the server has said how the write ended."""
    note.write_text(f"{server}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    try:
        yield
    except DriverLostError:
        raise
    except Exception:  # the server has answered, whatever it said; an interruption is no answer
        note.unlink()
        raise
    note.unlink()


def _refuse_unfinished(note: Path) -> None:
    if note.exists():
        raise UserError(
            f"a run wrote through the Spark Connect server at {note.read_text()} and did not see "
            "the end of it; that server may still be writing",
            remedy=f"see that it has ended or stands idle, then delete {note}",
        )


def _note_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.remote")


def _jvm_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.jvm")


def _wait(acquire: Callable[[], bool], *, path: Path, deadline: float) -> None:
    began = time.monotonic()
    while not acquire():
        if time.monotonic() > deadline:
            raise UserError(
                f"another run has been writing under {path} for {deadline - began:.0f} s",
                remedy="wait for it or end it",
            )
        time.sleep(_POLL_SECONDS)


def _flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_unlocked(file: IO[str]) -> bool:
    """Return whether no JVM holds the file; its locks are those of `lockf`."""
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.lockf(file.fileno(), fcntl.LOCK_UN)
    return True
