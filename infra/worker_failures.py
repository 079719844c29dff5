"""Why a training's workers failed: one that died costs steps, an error of the function ends it."""

import re
from collections.abc import Iterable

# How a worker fails when another one is gone or its start was disturbed. Each is a phrase of a
# transport, or the name of an error of one; a library's name alone would also match its refusals.
_CONSEQUENCES = (
    "connection closed by peer",
    "connection refused",
    "connection reset",
    "connection was likely closed",
    "broken pipe",
    "socket closed",
    "connect timeout",
    "timed out waiting",
    "caused pair closure",
    "gloo connectfullmesh failed",
    "distnetworkerror",
    "diststoreerror",
    "ncclremoteerror",
    "ncclsystemerror",
    "nccl communicator was aborted",
    "watchdog caught collective operation timeout",
    "workerhealthchecktimeouterror",
)


def is_death(failure: object) -> bool:
    """Return whether a worker's process or node is gone, whatever its message says."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    # Ray Train wraps what it met when it asked a worker how it is.
    asked = getattr(failure, "health_check_failure", failure)
    return isinstance(asked, RayActorError | NodeDiedError | WorkerCrashedError | OutOfMemoryError)


def is_consequence(failure: object) -> bool:
    """Return whether a worker failed because another one or its machine was gone."""
    text = f"{type(failure).__name__} {failure}".casefold()
    return is_death(failure) or any(sign in text for sign in _CONSEQUENCES)


def is_loss(failures: Iterable[object]) -> bool:
    """Return whether workers failed because of a loss, so that they may be started again.

    One that is plainly dead explains whatever the others say. Without one, each must say itself
    that it lost another: the dead one may not have been noticed yet.
    """
    found = list(failures)
    return any(map(is_death, found)) or all(map(is_consequence, found))


def root_cause(error: Exception) -> str:
    """Say in one line which worker failed with what, and where.

    Args:
        error: Ray Train's error; the worker that failed first is told from those that lost it.
    """
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return _last_line(str(error))
    rank, failure = min(sorted(failures.items()), key=lambda pair: _order(pair[1]))
    message = str(failure)
    is_traceback = "Traceback" in message
    # Without its own traceback, a failure's is the one that ends with its message in the report.
    text = message if is_traceback else str(error).partition(message)[0].rpartition("Traceback")[2]
    last = _last_line(message) if is_traceback else f"{type(failure).__name__}: {message}"
    places = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', text)
    own = [place for place in places if "site-packages" not in place[0]] or places
    where = f" (at {own[-1][0]}:{own[-1][1]} in {own[-1][2]})" if own else ""
    return f"worker {rank}: {last}{where}"


def _order(failure: object) -> int:
    """Return the place of a failure in a chain: a death, an error of its own, what they led to."""
    if is_death(failure):
        return 0
    return 2 if is_consequence(failure) else 1


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
