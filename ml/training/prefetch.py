"""Prepare the next batches on a background thread while the model computes.

torch's `DataLoader` does not have this: with `num_workers=0` it prepares nothing ahead, and its
workers are processes, which would each import torch and copy every batch through shared memory
(it has no thread workers). torchdata's `Prefetcher` is what this is, and is not among the
dependencies. Reading Arrow, and most of what numpy and torch do, let other threads run.
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


def after(batches: Iterable[T], *, start: int) -> Generator[T, None, None]:
    """Yield what follows an iterable's first batches, which are read and dropped.

    Other than `itertools.islice` it hands on that it is closed: a generator that is read is
    closed on the thread that closes this one.
    """
    iterator = iter(batches)
    try:
        yield from islice(iterator, start, None)
    finally:
        _close(iterator)


def prefetched(batches: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Yield what an iterable yields, in its order, prepared ahead by one background thread.

    The thread starts with the first batch that is asked for. It ends with the iterable, with its
    error, or as soon as the returned generator is closed (or forgotten) and the batch in
    preparation is done; a generator that is read is then closed as well, on that thread. What the
    iterable draws at random must come from a generator of its own: torch's global one is used
    by the model at the same time.

    Args:
        batches: What to read; read by the background thread only.
        depth: Batches that are prepared, or in preparation, beyond those handed over; from 1.

    Raises:
        ValueError: If the depth is below 1.
        BaseException: What reading raised, after all batches that came before it.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}; read without prefetching instead")
    return _consume(_Producer(batches, depth=depth))


@dataclass(frozen=True, slots=True)
class _End:
    """Follow the last batch: with the error of the iterable, or None."""

    error: BaseException | None


class _Producer(Generic[T]):
    """Read an iterable on a thread of its own, never more than some batches ahead."""

    def __init__(self, batches: Iterable[T], *, depth: int) -> None:
        self._batches = batches
        self._places = threading.Semaphore(depth)
        self._is_closed = threading.Event()
        self._ready: SimpleQueue[tuple[T] | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> tuple[T] | _End:
        taken = self._ready.get()
        self._places.release()
        return taken

    def close(self) -> None:
        self._is_closed.set()
        self._places.release()
        self._thread.join()

    def _run(self) -> None:
        error = None
        try:
            self._read()
        except BaseException as raised:
            error = raised
        self._ready.put(_End(error))

    def _read(self) -> None:
        iterator = iter(self._batches)
        try:
            while True:
                self._places.acquire()
                if self._is_closed.is_set():
                    return
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
                self._ready.put((batch,))
                del batch
        finally:
            _close(iterator)


def _consume(producer: _Producer[T]) -> Generator[T, None, None]:
    producer.start()
    try:
        while True:
            taken = producer.take()
            if isinstance(taken, _End):
                if taken.error is not None:
                    raise taken.error
                return
            batch = taken[0]
            # Without these two a batch would stay in memory until the next one is ready.
            del taken
            yield batch
            del batch
    finally:
        producer.close()


def _close(iterator: Iterator[object]) -> None:
    """Close a generator; other iterators hold nothing that must be let go at once."""
    if (close := getattr(iterator, "close", None)) is not None:
        close()
