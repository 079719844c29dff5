"""One ranker, its data and its optimiser, stepped and timed in parts."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import nn

from ml.batches import Batch, BatchConfig, SequenceBatches
from ml.features import FeatureSpec
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.training.parameters import parameter_groups
from tests.benchmarks.rankers_data import feature_spec, item_table, sequences
from tests.benchmarks.rankers_flops import Size

ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Name what every scheme is stepped on.

    Attributes:
        name: Name of the size in the tables.
        size: The model's size.
        events: Events per sequence, each a request of its own.
        batch: Sequences per step.
        compiled: Whether the blocks go through torch.compile.
        device: Where it runs.
        is_narrow: Whether the forward pass is in bfloat16.
    """

    name: str
    size: Size
    events: int
    batch: int
    compiled: bool = False
    device: str = "cpu"
    is_narrow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """Hold the seconds of one step.

    Attributes:
        batch: Cutting and padding the batch.
        passes: Forward and backward.
        update: Clipping the gradient and the optimiser.
    """

    batch: float
    passes: float
    update: float

    @property
    def whole(self) -> float:
        """Return the seconds from data to new weights."""
        return self.batch + self.passes + self.update


class Stepper:
    """Train one scheme step by step on a workload."""

    def __init__(self, scheme: str, workload: Workload) -> None:
        """Build data, model and optimiser, all from the seed 0.

        Args:
            scheme: One of `rankers_flops.SCHEMES`.
            workload: Sizes.
        """
        torch.manual_seed(0)
        size, spec = workload.size, feature_spec()
        config = SequenceRankerConfig(
            scheme=scheme,
            width=size.width,
            heads=size.heads,
            layers=size.layers,
            head_width=size.head_width,
        )
        self._device = torch.device(workload.device)
        self.model = SequenceRanker(config, spec=spec, items=item_table()).to(self._device).train()
        if workload.compiled:
            for block in self.model.backbone.blocks:
                block.compile(dynamic=False)
        self._narrow = workload.is_narrow
        self._batches = _endless(workload, spec)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self.model, weight_decay=0.01), lr=1e-4, fused=True
        )

    def step(self) -> StepTimes:
        """Take one optimiser step."""
        marks = [self._now()]
        batch = next(self._batches).to(self._device)
        marks.append(self._now())
        self._optimizer.zero_grad(set_to_none=True)
        narrow = torch.autocast(self._device.type, dtype=torch.bfloat16)
        with narrow if self._narrow else nullcontext():
            loss, weight = multi_task_loss(self.model(batch), batch)
        (loss / weight).backward()
        marks.append(self._now())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        marks.append(self._now())
        seconds = np.diff(marks).tolist()
        return StepTimes(batch=seconds[0], passes=seconds[1], update=seconds[2])

    def _now(self) -> float:
        """Return the time once the device has done what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _endless(workload: Workload, spec: FeatureSpec) -> Iterator[Batch]:
    """Yield training batches for ever."""
    config = BatchConfig(events=workload.events * workload.batch)
    rows = max(ROWS, 2 * workload.batch) // workload.batch * workload.batch
    data = sequences(rows, events=workload.events)
    batches = SequenceBatches(data, spec=spec, config=config)
    return (batch for number in count() for batch in batches.epoch(number))
