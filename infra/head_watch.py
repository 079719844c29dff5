"""Wait for Ray in a way that ends when its head is gone: nothing would ever answer then."""

import threading
from collections.abc import Callable
from typing import TypeVar, cast

from infra.cluster import head_is_alive, stop_ray
from infra.errors import UserError

_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0

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
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        problem = None
        if not head_is_alive():
            problem = UserError(f"{name}: the Ray head ended while it ran", remedy=remedy)
        elif thread.is_alive():
            problem = late()
        if problem is not None:
            _leave_ray()
            raise problem
    if raised:
        raise raised[0]
    return cast("Result", results[0])


def _leave_ray() -> None:
    """Disconnect, which ends what this process started; Ray ends a process whose head is gone."""
    thread = threading.Thread(target=stop_ray, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)
