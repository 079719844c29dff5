"""Say in one line that a disk is full, wherever that comes to light."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import UserError
from infra.lake_location import Folder

_SIGNS = ("No space left on device", "Disk quota exceeded", "database or disk is full")

# Of a run that ends for want of space: the state of its tables.
WHOLE = "every table is as it was or holds a whole write"


def says_full(text: str) -> bool:
    """Return whether a message, of any library, says that a disk is full."""
    return any(sign in text for sign in _SIGNS)


def disk_full(folder: Folder, *, state: str = "the table is as it was") -> UserError:
    """Return what to say where something could not be written for want of space.

    Args:
        folder: Where it was to be written.
        state: What has become of what was there.
    """
    return UserError(
        f"no space left on the disk of {folder}: {state}",
        remedy="free some space or set RANKLAKE_HOME to a larger disk, then run again",
    )


@contextmanager
def told_if_full(folder: Folder, *, state: str = "the table is as it was") -> Iterator[None]:
    """Turn an error that comes of a full disk into one line, and leave any other as it is.

    Args:
        folder: Where is being written.
        state: What has become of what was there.

    Raises:
        UserError: If the disk, or its owner's share of it, is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not any(says_full(str(each)) for each in _chain(error)):
            raise
        raise disk_full(folder, state=state) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Walk from an error to what it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
