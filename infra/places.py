"""The places that this process's trainings hold in Ray: which there are, and how to give them up.

A place is a placement group: room for all workers of one start. Its id ends with the id of the
process's job, so those of others on the same cluster are left alone.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from infra.errors import UserError
from infra.head_watch import run_watched

_POLL_SECONDS = 1.0


def run_placed(
    run: Callable[[], None], *, name: str, remedy: str, limit_seconds: float | None
) -> None:
    """Run something whose workers need a place, until it ends or would wait for one for ever.

    Args:
        run: What to run; it is left alone in its thread where it can never end.
        name: What it is, for the message.
        remedy: What to do when Ray's head has ended.
        limit_seconds: For how long its workers may have no place, at its start or later; None
            where it gives up by itself.

    Raises:
        NoPlaceError: If they had no place for too long.
        UserError: If the head ended.
    """
    from ray.exceptions import RayError

    others = held_places()
    watch = PlaceWatch(ignored=others)
    # Each look costs the workers some time, so nobody looks where no limit asks for it.
    with contextlib.nullcontext() if limit_seconds is None else watch:

        def late() -> UserError | None:
            if limit_seconds is None or watch.waited_seconds < limit_seconds:
                return None
            watch.stop()
            return NoPlaceError(f"{name}: its workers had no place for {limit_seconds:g} s")

        try:
            run_watched(run, name=name, remedy=remedy, late=late)
        except RayError:
            # A controller that died leaves the place of its workers taken.
            give_back(held_places().keys() - others.keys())
            raise


class NoPlaceError(UserError):
    """Report that workers had no place for too long."""


def held_places() -> dict[str, str]:
    """Return the state of each place that this process's job holds or waits for, by its id."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    table: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    return {
        place: entry["state"]
        for place, entry in table.items()
        if place.endswith(job) and entry["state"] != "REMOVED"
    }


def give_back(places: Iterable[str]) -> None:
    """Give up places, which ends the workers that are in them."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for place in places:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(place))))


class PlaceWatch:
    """Look, in a thread, for how long a training's workers have had no place at all."""

    def __init__(self, *, ignored: Iterable[str] = ()) -> None:
        """Count from now.

        Args:
            ignored: Places that others hold.
        """
        self._ignored = frozenset(ignored)
        self._last_placed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        """Start to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop to look; to be called before this process leaves Ray."""
        self._stop.set()
        self._thread.join(_POLL_SECONDS)

    @property
    def waited_seconds(self) -> float:
        """Return for how long there has been no place."""
        return time.monotonic() - self._last_placed

    def _look(self) -> None:
        import ray

        while not self._stop.wait(_POLL_SECONDS) and ray.is_initialized():
            # A head that is gone answers with errors or not at all; others look after that.
            with contextlib.suppress(Exception):
                held = held_places()
                if any(held[place] == "CREATED" for place in held.keys() - self._ignored):
                    self._last_placed = time.monotonic()
