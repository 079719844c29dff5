"""Watch how much memory a run and all its processes hold at once."""

import threading

import psutil

_INTERVAL_SECONDS = 2.0


class PeakMemory:
    """Sample the process tree's proportional set size until stopped.

    Pages that several processes share are counted once, which a sum of resident sizes would not.
    """

    def __init__(self) -> None:
        """Start sampling in a thread of its own."""
        self.peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling and return the highest sum seen, in bytes."""
        self._stopped.set()
        self._thread.join()
        return self.peak_bytes

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stopped.wait(_INTERVAL_SECONDS):
            held = sum(_held_bytes(each) for each in [own, *own.children(recursive=True)])
            self.peak_bytes = max(self.peak_bytes, held)


def _held_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
