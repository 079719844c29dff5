"""One training step of ours, and of the plain encoder, on the same windows, with its seconds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ml.retrieval.sasrec.batches import training_rows
from ml.retrieval.sasrec.fit import batch_loss
from ml.retrieval.sasrec.model import SasRec, SasRecConfig
from tests.benchmarks.sasrec_plain import PlainSasRec, padded

Windows = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Hold what some steps trained and took.

    Attributes:
        targets: Next items that were learnt from.
        seconds: On the wall.
        cpu_seconds: Of the processor, by this process.
    """

    targets: int
    seconds: float
    cpu_seconds: float


class OurSteps:
    """Train `SasRec`: batches are packed within the time."""

    def __init__(self, config: SasRecConfig, *, num_items: int) -> None:
        """Create model and optimiser."""
        self.config = config
        self.model = SasRec(config, num_items=num_items, seed=0)
        self.optimizer = _optimizer(self.model)

    def __call__(self, windows: Windows) -> int:
        """Take one step, return its targets."""
        batch = training_rows(windows, length=self.config.length)
        loss, count = batch_loss(self.model, batch)
        _step(self.optimizer, loss / count)
        return int(count)


class PlainSteps:
    """Train `PlainSasRec`: batches are padded within the time."""

    def __init__(self, config: SasRecConfig, *, num_items: int) -> None:
        """Create model and optimiser."""
        self.length, self.num_items = config.length, num_items
        self.model = PlainSasRec(config, num_items=num_items)
        self.optimizer = _optimizer(self.model)

    def __call__(self, windows: Windows) -> int:
        """Take one step, return its targets."""
        items, targets = padded(windows, length=self.length, padding=self.num_items)
        _step(self.optimizer, self.model.loss(items, targets))
        return sum(len(window) - 1 for window in windows)


def timed(step: Callable[[Windows], int], batches: Sequence[Windows]) -> Speed:
    """Take one step per batch."""
    wall, cpu = time.perf_counter(), time.process_time()
    targets = sum(step(batch) for batch in batches)
    return Speed(
        targets=targets,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
    )


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
