"""Batches prepared ahead: order, errors in their place, no thread left, how far ahead."""

import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from ml.training.collectives import SingleReplica
from ml.training.prefetch import after, prefetched
from tests.ml.toy_job import CONFIG, network, run_training, toy_job


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_order_is_kept_and_the_thread_ends(depth: int) -> None:
    assert list(prefetched(range(50), depth=depth)) == list(range(50))
    assert list(prefetched([None, 1, None], depth=depth)) == [None, 1, None]
    assert list(prefetched([], depth=depth)) == []
    assert not _threads()


def test_batches_are_prepared_by_another_thread() -> None:
    def idents() -> Iterator[int]:
        yield threading.get_ident()

    assert next(prefetched(idents(), depth=1)) != threading.get_ident()


def test_an_error_comes_after_the_batches_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk is gone")

    seen = []
    with pytest.raises(OSError, match="disk is gone"):
        for number in prefetched(broken(), depth=5):
            seen.append(number)
    assert seen == [1, 2]
    assert not _threads()


def test_an_iterable_that_cannot_be_started_raises_in_the_consumer() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        next(prefetched(3, depth=1))  # type: ignore[arg-type]
    assert not _threads()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_more_than_depth_batches_are_prepared_ahead(depth: int) -> None:
    made = 0
    more = threading.Condition()

    def counted() -> Iterator[int]:
        nonlocal made
        for number in range(20):
            with more:
                made += 1
                more.notify()
            yield number

    batches = prefetched(counted(), depth=depth)
    for handed_over in range(1, 6):
        next(batches)
        with more:
            assert more.wait_for(lambda most=handed_over + depth: made == most, timeout=10)
    time.sleep(0.05)
    assert made == 5 + depth
    batches.close()


def _endless(closed: threading.Event) -> Iterator[int]:
    try:
        number = 0
        while True:
            yield number
            number += 1
    finally:
        closed.set()


def test_closing_early_closes_what_is_read_and_ends_the_thread() -> None:
    closed = threading.Event()
    batches = prefetched(_endless(closed), depth=2)
    assert [next(batches), next(batches)] == [0, 1]
    assert _threads()
    batches.close()
    assert closed.is_set() and not _threads()


def test_a_consumer_that_fails_leaves_no_thread() -> None:
    closed = threading.Event()

    def consume() -> None:
        for number in prefetched(_endless(closed), depth=2):
            if number == 3:
                raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError):
        consume()
    assert closed.is_set() and not _threads()


def test_an_error_while_closing_early_does_not_hide_the_consumers() -> None:
    def spiteful() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            raise OSError("while closing")

    batches = prefetched(spiteful(), depth=1)
    next(batches)
    batches.close()
    assert not _threads()


def test_a_batch_is_let_go_once_the_consumer_lets_it_go() -> None:
    class Batch:
        pass

    def batches() -> Iterator[Batch]:
        while True:
            yield Batch()

    taken = prefetched(batches(), depth=1)
    first = next(taken)
    alive = weakref.ref(first)
    next(taken)
    del first
    assert alive() is None
    taken.close()


@pytest.mark.parametrize(("prefetch", "thread"), [(0, "MainThread"), (2, "prefetch")])
def test_a_training_that_fails_closes_its_reader_on_the_thread_that_read(
    tmp_path: Path, prefetch: int, thread: str
) -> None:
    closed: list[str] = []

    def epoch(number: int) -> Iterator[Tensor]:
        try:
            yield from job.epoch(number)
        finally:
            closed.append(threading.current_thread().name)

    def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        raise FloatingPointError("the loss is nan")

    job = toy_job(tmp_path, SingleReplica())
    config = replace(CONFIG, prefetch=prefetch)
    with pytest.raises(FloatingPointError) as raised:
        run_training(network(), replace(job, epoch=epoch, loss=loss), config)
    # While the error is held, so are the frames that it passed, and all that they read.
    assert raised.value and closed == [thread]
    assert not _threads()


def test_what_follows_the_first_batches_is_closed_with_what_it_reads() -> None:
    closed = threading.Event()
    batches = after(_endless(closed), start=3)
    assert [next(batches), next(batches)] == [3, 4]
    batches.close()
    assert closed.is_set()
    assert list(after([1, 2], start=2)) == []


def test_depth_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        prefetched([1], depth=0)
