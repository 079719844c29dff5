"""Wait for Ray in a way that ends when its head is gone: nothing would ever answer then."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from infra.cluster import head_is_alive, head_patience_seconds, stop_ray
from infra.errors import UserError

_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0
_LOOKS = 3

Result = TypeVar("Result")


def run_watched(
    run: Callable[[], Result],
    *,
    name: str,
    remedy: str,
    late: Callable[[], UserError | None] = lambda: None,
) -> Result:
    """Run something on Ray in a thread; return what it returns, raise what it raises.

    Args:
        run: What to run; it is left alone in its thread where it can never end.
        name: What it is, for the message.
        remedy: What to do when the head has ended.
        late: Returns an error once it is too late to wait any longer, None before.

    Raises:
        UserError: If the head ended, or it is too late.
    """
    results: list[Result] = []
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(run())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    silence = Silence(head_patience_seconds())
    # An error may come of a head that is gone: it is told only once the head has answered.
    while thread.is_alive() or (raised and silence.has_begun):
        _pause(thread)
        problem = None
        if silence.lasts(has_answered=head_is_alive(), now=time.monotonic()):
            problem = UserError(f"{name}: the Ray head ended while it ran", remedy=remedy)
        elif thread.is_alive():
            problem = late()
        if problem is not None:
            _leave_ray()
            raise problem
    if raised:
        raise raised[0]
    return cast("Result", results[0])


class Silence:
    """Tell a head that is gone from one that did not answer once."""

    def __init__(self, patience_seconds: float) -> None:
        """Count from the first look that is not answered.

        Args:
            patience_seconds: How long it may be silent; 0 for not at all.
        """
        self._patience_seconds = patience_seconds
        self._began: float | None = None
        self._looks = 0

    @property
    def has_begun(self) -> bool:
        """Return whether the last look was not answered."""
        return self._began is not None

    def lasts(self, *, has_answered: bool, now: float) -> bool:
        """Return whether the head has been silent for too long, and to several looks.

        Args:
            has_answered: What the newest look has found.
            now: When that was, in seconds.
        """
        if has_answered:
            self._began, self._looks = None, 0
            return False
        self._looks += 1
        self._began = now if self._began is None else self._began
        enough = _LOOKS if self._patience_seconds else 1
        return self._looks >= enough and now - self._began >= self._patience_seconds


def _pause(thread: threading.Thread) -> None:
    if thread.is_alive():
        thread.join(_POLL_SECONDS)
    else:
        time.sleep(_POLL_SECONDS)


def _leave_ray() -> None:
    """Disconnect, which ends what this process started; Ray ends a process whose head is gone."""
    thread = threading.Thread(target=stop_ray, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)
