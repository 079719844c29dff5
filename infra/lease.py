"""One writer at a time on a Delta table of an object store, whichever machine it is on.

No log store of Delta makes conditional writes through S3A: `spark.delta.logStore.s3a.impl` stays at
its default, `S3SingleDriverLogStore`, which looks whether a version is there and then writes it,
so that two drivers can both be told that a version is theirs. (The ones for `gs` and `abfss` do
better; the lease is the same for all.) So each write of a table holds a lease: an object of the
lake, `_locks/<group>.<table>`, that is made and replaced by conditional writes only and names its
holder.

A lease has no end by time: a driver that was thought dead could still commit. It is taken over
only where its holder has provably ended, which is seen on the same machine alone; otherwise
whoever waits is refused after ten minutes, with the holder's name, and a person who has seen it
end releases the lease (`make release-lease`). It covers the writers that go through ranklake.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

from infra.errors import DriverLostError, UserError
from infra.lake_location import StoreFolder
from infra.lease_holder import Holder, ProcessId, this_driver
from infra.object_store import LEASES, Stored, read_object, require_conditions, write_object

_PATIENCE_SECONDS = 600.0
_POLL_SECONDS = (0.05, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Hold what a lease's object says.

    Attributes:
        holder: Who has it, or None if it is free.
        left_ns: Since when files may be there that no commit names, by the store's clock: when a
            writer that did not end well took the lease; None if all ended well.
        token: Tells this text from all others.
    """

    holder: Holder | None
    left_ns: int | None
    token: str


@contextmanager
def lease(
    lake: StoreFolder,
    name: str,
    *,
    driver: Holder | None = None,
    timeout_seconds: float = _PATIENCE_SECONDS,
) -> Iterator[int]:
    """Hold a lease of a lake.

    Where the end of the driver's part was not seen, because its JVM, its server or this process
    went away in the middle, the lease stays with what may still write.

    Args:
        lake: Root of the lake.
        name: Name of the lease.
        driver: What will write; this process alone by default.
        timeout_seconds: How long to wait for another holder.

    Yields:
        The moment since which files may be there that no commit names, by the store's clock in
        nanoseconds: of the acquisition, or of that by a writer that did not end well.

    Raises:
        UserError: If another driver holds it, it was taken away meanwhile, or the store refuses.
    """
    require_conditions(lake)
    mine = _acquire(lake, name, driver or this_driver(), timeout_seconds=timeout_seconds)
    taken = _read(lake, name)
    began_ns = mine.left_ns or (taken[0].modified_ns if taken else 0)
    try:
        yield began_ns
    except DriverLostError:
        _let_go(lake, name, mine, began_ns=began_ns)
        raise
    except Exception:
        with suppress(UserError):  # what ended the write says more
            _release(lake, name, mine)
        raise
    except BaseException:
        with suppress(UserError):
            _let_go(lake, name, mine, began_ns=began_ns)
        raise
    _release(lake, name, mine)


def held_lease(lake: StoreFolder, name: str) -> Holder | None:
    """Return who holds a lease, or None if it is free."""
    found = _read(lake, name)
    return found[1].holder if found else None


def release_lease(lake: StoreFolder, name: str) -> Holder | None:
    """Take a lease from a holder that a person has seen end; the next writer cleans up after it.

    Returns:
        The holder, or None if the lease was free.

    Raises:
        UserError: If the holder is seen to run, or took the lease anew meanwhile.
    """
    found = _read(lake, name)
    if found is None or (holder := found[1].holder) is None:
        return None
    if holder.is_here and holder.server is None and not holder.has_ended:
        raise UserError(
            f"the lease {name} is held by {holder}, which is running",
            remedy="wait for it or end it",
        )
    left_ns = found[1].left_ns or found[0].modified_ns
    free = Lease(holder=None, left_ns=left_ns, token=uuid4().hex)
    if not write_object(lake, _path(name), _text(free), instead_of=found[0]):
        raise UserError(f"the lease {name} has changed hands meanwhile", remedy="look again")
    return holder


def _acquire(lake: StoreFolder, name: str, driver: Holder, *, timeout_seconds: float) -> Lease:
    deadline, pause = time.monotonic() + timeout_seconds, _POLL_SECONDS[0]
    mine = Lease(holder=driver, left_ns=None, token=uuid4().hex)
    while True:
        found = _read(lake, name)
        if found is None:
            if _put(lake, name, mine, instead_of=None):
                return mine
            continue
        stored, other = found
        if other.holder is None or other.holder.has_ended:
            left_ns = other.left_ns or (stored.modified_ns if other.holder else None)
            mine = replace(mine, left_ns=left_ns)
            if _put(lake, name, mine, instead_of=stored):
                return mine
            continue
        if time.monotonic() > deadline:
            raise _refusal(lake, name, other.holder, seconds=timeout_seconds)
        time.sleep(pause)
        pause = min(2 * pause, _POLL_SECONDS[1])


def _put(lake: StoreFolder, name: str, wanted: Lease, *, instead_of: Stored | None) -> bool:
    """Write a lease; return whether it is there, even if the first answer was lost on its way."""
    if write_object(lake, _path(name), _text(wanted), instead_of=instead_of):
        return True
    found = _read(lake, name)
    return found is not None and found[1].token == wanted.token


def _release(lake: StoreFolder, name: str, mine: Lease) -> None:
    _replace(lake, name, mine, Lease(holder=None, left_ns=None, token=uuid4().hex))


def _let_go(lake: StoreFolder, name: str, mine: Lease, *, began_ns: int) -> None:
    """Leave the lease with what this process cannot vouch for: its JVM, or its server."""
    assert mine.holder is not None
    rest = replace(mine.holder, python=None)
    _replace(lake, name, mine, Lease(holder=rest, left_ns=began_ns, token=uuid4().hex))


def _replace(lake: StoreFolder, name: str, mine: Lease, wanted: Lease) -> None:
    found = _read(lake, name)
    is_mine = found is not None and found[1].token == mine.token
    if not is_mine or not _put(lake, name, wanted, instead_of=found[0] if found else None):
        holder = found[1].holder if found else None
        raise UserError(
            f"the lease {name} of the lake at {lake} was taken away during the write, and is now "
            f"{f'held by {holder}' if holder else 'free'}: a commit may have been lost",
            remedy="see that no other driver writes there, then run again",
        )


def _refusal(lake: StoreFolder, name: str, holder: Holder, *, seconds: float) -> UserError:
    remedy = "wait for it or end it"
    if not holder.is_here or holder.server is not None:
        table = name.rpartition(".")[2]
        remedy = f"wait for it, or see that it has ended and say make release-lease TABLE={table}"
    return UserError(
        f"{name} of the lake at {lake} has been held for {seconds:.0f} s by {holder}", remedy=remedy
    )


def _path(name: str) -> str:
    return f"{LEASES}/{name}"


def _read(lake: StoreFolder, name: str) -> tuple[Stored, Lease] | None:
    stored = read_object(lake, _path(name))
    return None if stored is None else (stored, _lease(stored.content, place=f"{lake}/{LEASES}"))


def _text(wanted: Lease) -> bytes:
    return json.dumps(asdict(wanted), indent=1).encode()


def _lease(content: bytes, *, place: str) -> Lease:
    try:
        fields = json.loads(content)
        if held := fields["holder"]:
            for name in ("python", "jvm"):
                held[name] = ProcessId(**held[name]) if held[name] else None
            held = Holder(**held)
        return Lease(holder=held, left_ns=fields["left_ns"], token=fields["token"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"a lease under {place} is not one of this release ({error})",
            remedy="see that no driver writes there, then delete the object",
        ) from None
