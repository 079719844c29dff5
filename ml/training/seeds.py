"""Random numbers of a training: one seed, and a stream of its own for each epoch and replica."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(*, seed: int, epoch: int, rank: int) -> Iterator[None]:
    """Give dropout its stream for an epoch, and the caller's global state back afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_000_003 + rank)
        yield
