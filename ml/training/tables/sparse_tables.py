"""Which embedding tables of a model have sparse gradients, and how these become one mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.training.collectives import Collectives
from ml.training.norms import square_norm
from ml.training.tables.touched_rows import TouchedRows, sum_sparse


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Hold a model's tables with sparse gradients, by the names of their modules.

    Attributes:
        replicated: Trainable weights that every replica holds whole, each once.
        sharded: Tables of which every replica holds some rows, frozen ones included: their rows are
            exchanged and saved all the same.
    """

    replicated: Mapping[str, nn.Parameter]
    sharded: Mapping[str, ShardedEmbedding]

    @classmethod
    def of(cls, model: nn.Module) -> "Tables":
        """Return the tables of a model."""
        replicated: dict[str, nn.Parameter] = {}
        sharded: dict[str, ShardedEmbedding] = {}
        for name, module in model.named_modules():
            if isinstance(module, ShardedEmbedding):
                sharded[name] = module
            elif _has_sparse_gradients(module):
                weight = module.get_parameter("weight")
                if all(weight is not other for other in replicated.values()):
                    replicated[name] = weight
        return cls(replicated=replicated, sharded=sharded)

    @property
    def weights(self) -> list[nn.Parameter]:
        """Return the parameters that are trained, each once."""
        return [*self.replicated.values(), *self.trained_shards]

    @property
    def shards(self) -> list[nn.Parameter]:
        """Return the parameters of which every replica holds some rows, each once."""
        return list({id(table.weight): table.weight for table in self.sharded.values()}.values())

    @property
    def trained_shards(self) -> list[nn.Parameter]:
        """Return those of `shards` that are trained."""
        return [weight for weight in self.shards if weight.requires_grad]

    def touched(self) -> dict[Tensor, TouchedRows]:
        """Return what remembers the rows in which replicated tables may differ."""
        return {
            weight: TouchedRows(len(weight), device=weight.device)
            for weight in self.replicated.values()
        }

    def check_size(self, size: int) -> None:
        """Check that sharded tables are cut over as many ranks as there are replicas.

        Raises:
            ValueError: If one is not; its rows' gradients would not be sums over all replicas.
        """
        for name, table in self.sharded.items():
            if table.size != size:
                raise ValueError(
                    f"table {name!r} is cut over {table.size} ranks, and {size} replicas train it;"
                    " build the model after torch.distributed is initialised, on every replica"
                )


class TableGradients:
    """Turn the tables' sparse gradients into those of the mean loss, in place.

    A replicated table's are added up over the replicas; the owner of a sharded table's rows has
    their sums already.
    """

    def __init__(self, tables: Tables, *, collectives: Collectives, is_shared: bool) -> None:
        """Take the tables.

        Args:
            tables: Tables of the model.
            collectives: How to reach the other replicas.
            is_shared: Whether replicas share gradients, or each keeps its own.
        """
        self._tables, self._collectives, self._is_shared = tables, collectives, is_shared

    def are_finite(self) -> bool:
        """Return whether the gradients here are; before the exchange they are this replica's.

        Raises:
            ValueError: If a gradient is dense.
        """
        return all(
            bool(torch.isfinite(_sparse(weight.grad)._values()).all())
            for weight in self._tables.replicated.values()
            if weight.grad is not None
        )

    def exchange(self, weight: Tensor) -> Tensor:
        """Add up, divide by the weight that the loss is summed over, return the squared norm.

        Args:
            weight: Summed weight, a scalar; less than 1 counts as 1.

        Returns:
            Sum of all squares, float64, equal on replicas that share gradients.
        """
        squares = torch.zeros((), dtype=torch.float64, device=weight.device)
        for table in self._tables.replicated.values():
            gradient = _of(table)
            if self._is_shared:
                gradient = sum_sparse(gradient, self._collectives)
            squares = squares + _divide(table, gradient, weight)
        if not self._tables.trained_shards:
            return squares
        own = torch.zeros_like(squares)
        for table in self._tables.trained_shards:
            own = own + _divide(table, _of(table), weight)
        return squares + self._collectives.sum(own)

    def scale(self, factor: float) -> None:
        """Multiply all gradients by a factor."""
        for table in self._tables.weights:
            assert table.grad is not None
            table.grad._values().mul_(factor)


def _has_sparse_gradients(module: nn.Module) -> bool:
    """Return whether a module is a trainable table whose gradients are sparse."""
    if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return False
    return bool(module.sparse) and module.weight.requires_grad


def _of(table: nn.Parameter) -> Tensor:
    """Return a table's gradient, each row once; without entries where no batch reached it."""
    if table.grad is not None:
        return _sparse(table.grad).coalesce()
    rows = torch.empty((1, 0), dtype=torch.long, device=table.device)
    values = torch.empty((0, *table.shape[1:]), dtype=table.dtype, device=table.device)
    return torch.sparse_coo_tensor(
        rows, values, table.shape, is_coalesced=True, check_invariants=False
    )


def _sparse(gradient: Tensor) -> Tensor:
    """Return a gradient that is sparse.

    Raises:
        ValueError: If it is dense.
    """
    if not gradient.is_sparse:
        raise ValueError(
            "a table of sparse gradients got a dense one; use its weight for look-ups only, or"
            " make it a table of dense gradients (sparse=False)"
        )
    return gradient


def _divide(table: nn.Parameter, gradient: Tensor, weight: Tensor) -> Tensor:
    """Put a coalesced gradient over a weight in place; return its squared norm, float64."""
    gradient._values().div_(weight.clamp(min=1).to(gradient.dtype))
    table.grad = gradient
    return square_norm([gradient._values()])
