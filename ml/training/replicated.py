"""How the loop holds a model: whole on every replica, or split over them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from ml.layers.sharded_embedding import refuse_sharded
from ml.training.checkpoint import load_optimizer, read_weights, save_checkpoint, write_files
from ml.training.collectives import Collectives
from ml.training.config import TrainConfig
from ml.training.gradients import Exchanged, GradientExchange
from ml.training.hdet.scheduler import perturb
from ml.training.tables.files import load_tables, save_tables, save_together, without_shards
from ml.training.tables.optimizer import TableOptimizer
from ml.training.tables.sparse_tables import Tables
from ml.training.tables.touched_rows import TouchedRows
from ml.training.together import together

Result = TypeVar("Result")


class Held(Protocol):
    """Hold a model that is trained, exchange its gradients, write and read it."""

    needs_every_batch: bool
    touched: Mapping[Tensor, TouchedRows]

    @property
    def model(self) -> nn.Module:
        """Return what is optimised: the model, or what holds its parts."""
        ...

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
        ValueError: If a model shall be split over one worker, or has a table that is split already
            or has sparse gradients.
    """
    if config.sharding == "none":
        return Replicated(model, config, replicas=replicas)
    if found := [*(tables := Tables.of(model)).replicated, *tables.sharded]:
        raise ValueError(
            f"sharding='full' splits dense parameters, and table {found[0]!r} is cut by rows or "
            "has sparse gradients; set sharding='none', or the model's item_table='replicated'"
        )
    if replicas.size < 2:
        raise ValueError(
            "sharding='full' splits a model over workers, and there is one; set RANKLAKE_WORKERS "
            "to 2 or more, or sharding='none'"
        )
    # Imported here because FSDP takes up to a second, which only a split model should wait for.
    from ml.training.split import Split

    return Split(model, config, replicas=replicas)


class Replicated:
    """Hold a model whole on every replica, but for the rows of sharded tables."""

    def __init__(self, model: nn.Module, config: TrainConfig, *, replicas: Collectives) -> None:
        """Give every replica what replica 0 holds, plus its own noise if configured.

        That is all parameters, frozen ones too, and buffers, but for the rows of sharded tables.

        Raises:
            ValueError: If HDET or AdaScale is on and a table is cut over the replicas, or one is
                cut over another number of ranks.
        """
        self.model, self._replicas, self._tables = model, replicas, Tables.of(model)
        _check_tables(model, self._tables, config, size=replicas.size)
        # All ranks answer a look-up, so each of them must make as many as the others.
        self.needs_every_batch = bool(self._tables.sharded) and replicas.size > 1
        self.touched: Mapping[Tensor, TouchedRows] = (
            self._tables.touched() if config.hdet.is_on else {}
        )
        others = {id(weight) for weight in self._tables.shards}
        parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
        others |= {id(weight) for weight in self._tables.weights}
        self._exchange = GradientExchange(
            [p for p in parameters if id(p) not in others],
            collectives=replicas,
            is_shared=config.hdet.gradient_sync == "shared",
            clip_norm=config.clip_norm,
            tables=self._tables,
        )
        if replicas.size > 1:
            rows = {id(weight) for weight in self._tables.shards}
            for tensor in (*model.parameters(), *model.buffers()):
                if id(tensor) not in rows:
                    replicas.broadcast(tensor)
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
        """Write a checkpoint on replica 0, and where tables are sharded, by all replicas."""
        if not self._tables.sharded:
            if self._replicas.rank == 0:
                save_checkpoint(folder, self.model, optimizer=optimizer, state=state, texts=texts)
            return
        assert isinstance(optimizer, TableOptimizer)
        moments = without_shards(optimizer, self._tables)
        save_together(
            folder,
            first=lambda part: write_files(
                part, self.model, optimizer=moments, state=state, texts=texts
            ),
            every=lambda part: save_tables(part, self._tables, optimizer),
            replicas=self._replicas,
        )

    def load(self, folder: Path, optimizer: Optimizer) -> None:
        """Read a checkpoint's weights and moments; all replicas fail if one does.

        Raises:
            OSError: If it cannot be read.
            RuntimeError: If it is of another model or optimiser.
        """
        together(lambda: self._load(folder, optimizer), self._replicas)

    def _load(self, folder: Path, optimizer: Optimizer) -> None:
        self.model.load_state_dict(read_weights(folder), strict=True)
        load_optimizer(folder, optimizer)
        if self._tables.sharded:
            assert isinstance(optimizer, TableOptimizer)
            load_tables(folder, self._tables, optimizer)


def _check_tables(model: nn.Module, tables: Tables, config: TrainConfig, *, size: int) -> None:
    """Refuse what sharded tables make wrong.

    Raises:
        ValueError: If HDET or AdaScale is on, or ranks and replicas are not the same.
    """
    if config.hdet.is_on:
        refuse_sharded(model, method="HDET")
    if config.adascale is not None:
        refuse_sharded(model, method="AdaScale")
    tables.check_size(size)
