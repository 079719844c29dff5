"""How much processor time this process's descendants have used, as it goes."""

import threading
import time
from contextlib import suppress
from typing import Self

import numpy as np
import psutil

_INTERVAL_SECONDS = 0.25


class CpuWatch:
    """Sum the CPU seconds of all descendants, those that have ended included.

    A process that lives for less than the interval may be missed, and the last quarter of a
    second of each. On a busy machine CPU seconds say more than the wall clock.
    """

    def __init__(self, root: int | None = None) -> None:
        """Watch nothing yet.

        Args:
            root: Process that is watched with its descendants; None for this one's descendants.
        """
        self._root = root
        self._used: dict[tuple[int, float], float] = {}
        self._times: list[float] = []
        self._totals: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Start to watch."""
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look once more and stop."""
        self._ended.set()
        self._thread.join()
        self._look()

    def between(self, first: float, last: float) -> float:
        """Return the CPU seconds used between two times, in seconds since 1970."""
        return self._until(last) - self._until(first)

    def _until(self, moment: float) -> float:
        return float(np.interp(moment, self._times, self._totals))

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        for process in self._watched():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                used = process.cpu_times()
                self._used[process.pid, process.create_time()] = used.user + used.system
        self._times.append(time.time())
        self._totals.append(sum(self._used.values()))

    def _watched(self) -> list[psutil.Process]:
        if self._root is None:
            return psutil.Process().children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._root)
            return [root, *root.children(recursive=True)]
        return []
