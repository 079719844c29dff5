"""A model that is split over the workers, as the loop holds it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ml.training.checkpoint import read_optimizer, read_weights, save_checkpoint
from ml.training.collectives import Collectives
from ml.training.config import TrainConfig
from ml.training.fully_sharded import Sharded, finish_gradients, run, shard
from ml.training.gradients import Exchanged
from ml.training.sharded_state import full_state, load_full_state
from ml.training.tables.touched_rows import TouchedRows
from ml.training.together import together

Result = TypeVar("Result")


class Split:
    """Hold a part of a model on every worker."""

    needs_every_batch = True
    touched: Mapping[Tensor, TouchedRows] = {}

    def __init__(self, model: nn.Module, config: TrainConfig, *, replicas: Collectives) -> None:
        """Split the model, with the weights of replica 0."""
        self.model: Sharded = shard(model)
        self._replicas, self._clip_norm = replicas, config.clip_norm

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Return what a function of the bare model and more arguments returns."""
        return run(self.model, function, *arguments)

    def finish(self, loss: Tensor, weight: Tensor) -> Exchanged:
        """Turn the gradients, which the backward passes have summed, into the clipped mean."""
        own = torch.stack([loss.double(), weight.double()])
        total = self._replicas.sum(own)
        norm = finish_gradients(self.model, total[1], clip_norm=self._clip_norm)
        is_finite = bool(torch.isfinite(total[0]) & torch.isfinite(norm))
        return Exchanged(
            loss=float(total[0]),
            weight=float(total[1]),
            mean=norm,
            is_finite=is_finite,
            own_is_finite=bool(torch.isfinite(own).all()),
        )

    def hold(self) -> list[Tensor]:
        """Refuse: a worker sees no gradient of its own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "workers of a split model have no gradients of their own batches, which adascale "
            "needs; set adascale=None, or sharding='none'"
        )

    def save(
        self,
        folder: Path,
        optimizer: Optimizer,
        *,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
    ) -> None:
        """Gather the whole model, write it on replica 0; all replicas fail if it does.

        Raises:
            OSError: If it cannot be written.
        """
        whole = full_state(self.model, optimizer)

        def write() -> None:
            assert whole is not None
            save_checkpoint(folder, whole[0], optimizer=whole[1], state=state, texts=texts)

        together(write, self._replicas, only_first=True)

    def load(self, folder: Path, optimizer: Optimizer) -> None:
        """Read a checkpoint on replica 0, give every worker its part; all fail if one does.

        Raises:
            OSError: If it cannot be read.
            RuntimeError: If it is of another model or optimiser.
        """
        state = together(
            lambda: (read_weights(folder), read_optimizer(folder)), self._replicas, only_first=True
        )
        load_full_state(self.model, optimizer, state)
