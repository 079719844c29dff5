"""How the loop holds a model: whole on every replica, or split over them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from ml.training.checkpoint import (
    load_model,
    load_optimizer,
    save_checkpoint,
)
from ml.training.collectives import Collectives
from ml.training.config import TrainConfig
from ml.training.flat import pack, unpack_into
from ml.training.gradients import Exchanged, GradientExchange
from ml.training.hdet import perturb

Result = TypeVar("Result")


class Held(Protocol):
    """Hold a model that is trained, exchange its gradients, write and read it."""

    model: nn.Module
    needs_every_batch: bool

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Return what a function of the bare model and more arguments returns."""
        ...

    def finish(self, loss: Tensor, weight: Tensor) -> Exchanged:
        """Turn the summed gradients of all replicas into the clipped mean, in place."""
        ...

    def hold(self) -> list[Tensor]:
        """Put the gradients of a batch aside and return them."""
        ...

    def save(
        self,
        folder: Path,
        optimizer: Optimizer,
        *,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
    ) -> None:
        """Write a checkpoint on replica 0; every replica calls it."""
        ...

    def load(self, folder: Path, optimizer: Optimizer) -> None:
        """Read a checkpoint's weights and moments."""
        ...


def held(model: nn.Module, config: TrainConfig, *, replicas: Collectives) -> Held:
    """Return a model as the configuration wants it held.

    Args:
        model: On its device, unless it is to be split.
        config: Sharding, clipping and HDET's initial noise.
        replicas: The replicas.

    Raises:
        ValueError: If a model shall be split over one worker.
    """
    if config.sharding == "none":
        return Replicated(model, config, replicas=replicas)
    if replicas.size < 2:
        raise ValueError(
            "sharding='full' splits a model over workers, and there is one; set RANKLAKE_WORKERS "
            "to 2 or more, or sharding='none'"
        )
    # Imported here because FSDP takes up to a second, which only a split model should wait for.
    from ml.training.split import Split

    return Split(model, config, replicas=replicas)


class Replicated:
    """Hold a model whole on every replica."""

    needs_every_batch = False

    def __init__(self, model: nn.Module, config: TrainConfig, *, replicas: Collectives) -> None:
        """Give every replica the weights of replica 0, plus its own noise if configured."""
        self.model, self._replicas = model, replicas
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._exchange = GradientExchange(
            parameters,
            collectives=replicas,
            is_shared=config.hdet.gradient_sync == "shared",
            clip_norm=config.clip_norm,
        )
        if replicas.size > 1:
            flat = pack(parameters)
            unpack_into(replicas.sum(flat if replicas.rank == 0 else flat * 0), parameters)
            if noise := config.hdet.noise_fraction:
                perturb(parameters, fraction=noise, seed=config.hdet.seed, rank=replicas.rank)

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Return what a function of the bare model and more arguments returns."""
        return function(self.model, *arguments)

    def finish(self, loss: Tensor, weight: Tensor) -> Exchanged:
        """Turn the summed gradients into the clipped mean, in place."""
        return self._exchange.finish(loss, weight)

    def hold(self) -> list[Tensor]:
        """Put the gradients of a batch aside and return them."""
        return self._exchange.hold()

    def save(
        self,
        folder: Path,
        optimizer: Optimizer,
        *,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
    ) -> None:
        """Write a checkpoint on replica 0."""
        if self._replicas.rank == 0:
            save_checkpoint(folder, self.model, optimizer=optimizer, state=state, texts=texts)

    def load(self, folder: Path, optimizer: Optimizer) -> None:
        """Read a checkpoint's weights and moments."""
        load_model(folder, self.model)
        load_optimizer(folder, optimizer)
