"""An embedding table cut by rows over processes, for tables that do not fit into one.

Row r lives on rank r % size, at place r // size. Vocabularies are usually numbered by falling
frequency, so contiguous blocks would put nearly all look-ups on rank 0; dealing the rows out like
cards gives every rank its share of the hot ones. The price is that reading a saved table with
another number of ranks passes over whole files (see `ml.layers.sharded_files`).

A look-up asks each owner for its rows by one exchange of ids and one of vectors; an id that stands
many times in a batch is sent once. The backward pass sends the vectors' gradients to the owners,
each of which gets the sum over all ranks as a sparse gradient of its own rows. So no all-reduce of
this parameter: divide its gradient by the weight of the whole batch, and that is all.

Why not torchrec: with torch 2.15.0, torchrec 1.9.2 installs but cannot be imported, because the
released kernels do not load on a machine without a GPU: fbgemm-gpu 1.9.0 wants libnvidia-ml.so.1,
and fbgemm-gpu-cpu 1.9.0, built for another torch, misses the symbol c10::report_overflow. With a
nightly build (fbgemm-gpu-nightly-cpu 2026.10.16) its row-wise table does train on two gloo
processes, but sends an id as often as it stands in the batch: the operator behind
`use_index_dedup`, jagged_unique_indices, has no CPU form. And a nightly cannot be locked for long.

Source: row-wise model parallelism of DLRM (Naumov et al. 2019, arXiv 1906.00091, section 4).
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

# Shapes: ... any leading shape, D width, L rows of this rank, U distinct ids that this rank asks
# for, R rows that all ranks ask of this one.
_CHUNK_ROWS = 1 << 14
# SplitMix64: the increment of its counter, and the shifts and factors that mix it.
_INCREMENT = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_WORD = 2**64


def initial_rows(rows: np.ndarray, *, width: int, seed: int, scale: float) -> np.ndarray:
    """Return the first vectors of global rows; they depend on nothing but row, width and seed.

    Coordinate c of row r is number r D + c of one SplitMix64 sequence, which can be computed at any
    place without the ones before it. Uniform, so that no logarithm is needed.

    Args:
        rows: Row numbers, int64 [n].
        width: Width D.
        seed: Tells tables apart.
        scale: Standard deviation of a coordinate.

    Returns:
        float32 [n, D], uniform within +- scale sqrt(3).

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 16.
    """
    start = (seed * _ROUNDS[0][1]) % _WORD
    words = rows.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
    words += np.uint64(1)
    words *= np.uint64(_INCREMENT)
    words += np.uint64(start)
    for shift, factor in _ROUNDS:
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(31)
    words >>= np.uint64(40)
    # 24 bits are what a float32 holds exactly; the half step keeps the mean at zero.
    unit = (words.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23) - np.float32(1)
    return unit * np.float32(scale * 3**0.5)


def plain_table(num_rows: int, width: int, *, seed: int = 0, scale: float = 0.05) -> nn.Embedding:
    """Return a table in one piece with sparse gradients and the first rows of a sharded one.

    Args:
        num_rows: Rows of the table.
        width: Width D.
        seed: Tells tables apart.
        scale: Standard deviation of a new vector's coordinates.
    """
    rows = _fresh(range(num_rows), width=width, seed=seed, scale=scale)
    return nn.Embedding(num_rows, width, sparse=True, _weight=rows)


class ShardedEmbedding(nn.Module):
    """Hold this rank's rows of a table and look up any; see the module.

    Look-up and backward pass are exchanges: every rank must call both equally often, with an empty
    batch where it has none. Ids out of range are refused by the rank that asks for them, and its
    partners then wait until it ends.

    `state_dict` leaves the rows out, because one rank's rows in a checkpoint would be taken for the
    table of any other; `ml.layers.sharded_files` writes and reads them. After `load_state_dict`
    the table refuses look-ups until its rows have been read.

    Attributes:
        weight: This rank's rows, float32 [L, D].
        num_rows: Rows of the whole table.
        width: Width D.
        rank: Number of this shard.
        size: Number of shards.
    """

    def __init__(
        self,
        num_rows: int,
        width: int,
        *,
        group: dist.ProcessGroup | None = None,
        seed: int = 0,
        scale: float = 0.05,
    ) -> None:
        """Create this rank's rows; the same table whatever the number of ranks.

        Args:
            num_rows: Rows of the whole table.
            width: Width D.
            group: Processes that share the table; None for all of them, or for this one alone if
                torch.distributed is not initialised.
            seed: Tells tables apart.
            scale: Standard deviation of a new vector's coordinates.

        Raises:
            ValueError: If the table has no row or no width, or this process is not in the group.
        """
        super().__init__()
        if num_rows < 1 or width < 1:
            raise ValueError(f"a table needs rows and a width, got {num_rows} x {width}")
        self._group = group
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank(group) if grouped else 0
        self.size = dist.get_world_size(group) if grouped else 1
        if self.rank < 0:
            raise ValueError("this process is not in the table's group; create it on members only")
        self.num_rows, self.width = num_rows, width
        self._awaits_rows = False
        own = range(self.rank, num_rows, self.size)
        self.weight = nn.Parameter(_fresh(own, width=width, seed=seed, scale=scale))
        self._mark()
        self.register_state_dict_post_hook(_leave_rows_out)
        self.register_load_state_dict_pre_hook(_keep_rows)

    def _mark(self) -> None:
        # So that what sees parameters only, such as HDET's scheduler, can refuse them too.
        setattr(self.weight, "row_shards", self.size)  # noqa: B010
        self.weight.register_post_accumulate_grad_hook(_coalesce)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the rows; the group stays, and so does what a parameter's own copy would lose."""
        copied = type(self).__new__(type(self))
        memo |= {id(self): copied, id(self._group): self._group}
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        copied._mark()
        return copied

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors, [..., D], of integer ids [...] of the whole table.

        Raises:
            IndexError: If an id is not a row of the table.
            TypeError: If the ids are not integers.
            RuntimeError: If a state was loaded and the rows were not.
        """
        if self._awaits_rows:
            raise RuntimeError("the table's rows were not loaded; call load_rows after the state")
        keys, places = torch.unique(self._keys(ids), return_inverse=True)
        route = self._route(keys)
        vectors_UD = _LookUp.apply(self.weight, route)
        # Backward this is index_add, on the CPU a third of the time of embedding's dense backward.
        return vectors_UD.index_select(0, places.flatten()).reshape(*ids.shape, self.width)

    def extra_repr(self) -> str:
        """Return what printing the model shows of the table."""
        return f"{self.num_rows}, {self.width}, shard {self.rank} of {self.size}"

    def get_extra_state(self) -> Tensor:
        """Return what a state says of the table: rows and width."""
        return torch.tensor([self.num_rows, self.width])

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the table of a state with this one, and wait for its rows.

        Raises:
            ValueError: If the state is of a table of another shape.
        """
        if state.tolist() != [self.num_rows, self.width]:
            raise ValueError(
                f"the state is of a table of {state.tolist()} rows and width, this one is of"
                f" {[self.num_rows, self.width]}; build the model that was saved"
            )
        self._awaits_rows = True

    def rows_loaded(self) -> None:
        """Say that the rows are those of the state that was loaded."""
        self._awaits_rows = False

    def _keys(self, ids: Tensor) -> Tensor:
        """Return numbers that tell the ids apart and sort them by owner, then by place.

        Raises:
            IndexError: If an id is not a row of the table.
            TypeError: If the ids are not integers.
        """
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(f"ids are row numbers, got {ids.dtype}; convert them to int64")
        if ids.numel():
            low, high = (int(bound) for bound in torch.aminmax(ids))
            if low < 0 or high >= self.num_rows:
                raise IndexError(
                    f"ids {low} to {high} do not lie within the table's {self.num_rows} rows;"
                    " map unknown ones to a row of their own"
                )
        ids = ids.long()
        return ids if self.size == 1 else ids % self.size * self._stride + ids // self.size

    @property
    def _stride(self) -> int:
        """Return the most rows that a rank can have."""
        return -(-self.num_rows // self.size)

    def _route(self, keys: Tensor) -> "_Route":
        """Tell every owner which rows this rank wants; [U] sorted keys."""
        if self.size == 1:
            return _Route(group=None, asked=[len(keys)], wanted=[len(keys)], rows=keys)
        bounds = torch.arange(self.size + 1, device=keys.device) * self._stride
        counts = torch.searchsorted(keys, bounds).diff()
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts, group=self._group)
        asked, wanted = counts.tolist(), theirs.tolist()
        route = _Route(group=self._group, asked=asked, wanted=wanted, rows=keys)
        return _Route(
            group=self._group,
            asked=asked,
            wanted=wanted,
            rows=route.to_owners(keys % self._stride),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    """Say how many rows go where in one look-up.

    Attributes:
        group: The processes; None for this one alone.
        asked: Rows that this rank asks of each rank; their sum is U.
        wanted: Rows that each rank asks of this one; their sum is R.
        rows: The rows asked of this one, as places in its weight, [R].
    """

    group: dist.ProcessGroup | None
    asked: list[int]
    wanted: list[int]
    rows: Tensor

    def to_owners(self, tensor_U: Tensor) -> Tensor:
        """Send what belongs to the asked rows to their owners, [U, ...] -> [R, ...]."""
        return self._exchange(tensor_U, sent=self.asked, received=self.wanted)

    def to_askers(self, tensor_R: Tensor) -> Tensor:
        """Send what belongs to the wanted rows to those who asked, [R, ...] -> [U, ...]."""
        return self._exchange(tensor_R, sent=self.wanted, received=self.asked)

    def _exchange(self, tensor: Tensor, *, sent: list[int], received: list[int]) -> Tensor:
        """Exchange slices of the first dimension."""
        if len(sent) == 1:
            return tensor
        result = tensor.new_empty((sum(received), *tensor.shape[1:]))
        dist.all_to_all_single(result, tensor.contiguous(), received, sent, group=self.group)
        return result


class _LookUp(torch.autograd.Function):
    """Fetch rows from their owners; send their gradients back."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, route: _Route) -> Tensor:
        """Return the asked rows, [U, D]."""
        ctx.route, ctx.shape = route, weight.shape
        return route.to_askers(embedding(route.rows, weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_UD: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient of this rank's rows, sparse; a row stands once per asking rank."""
        route: _Route = ctx.route
        gradient_RD = route.to_owners(gradient_UD)
        gradient = torch.sparse_coo_tensor(
            route.rows[None], gradient_RD, ctx.shape, check_invariants=False
        )
        return gradient, None


def _coalesce(weight: Tensor) -> None:
    """Let each row stand once in the gradient; here, as accumulating forgets that it does."""
    assert weight.grad is not None
    weight.grad = weight.grad.coalesce()


def _leave_rows_out(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the rows out of a state that is being made."""
    del state[f"{prefix}weight"]


def _keep_rows(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let loading a state find the rows that the module has."""
    assert isinstance(module, ShardedEmbedding)
    state[f"{prefix}weight"] = module.weight.detach()


def _fresh(rows: range, *, width: int, seed: int, scale: float) -> Tensor:
    """Return the first vectors of some rows."""
    fresh = torch.empty(len(rows), width)
    for places in _chunks(len(rows)):
        numbers = np.arange(places.start, places.stop) * rows.step + rows.start
        vectors = initial_rows(numbers, width=width, seed=seed, scale=scale)
        fresh[places] = torch.from_numpy(vectors)
    return fresh


def _chunks(count: int) -> Iterator[slice]:
    """Return slices that cover a number of rows, small enough for a processor's cache."""
    for start in range(0, count, _CHUNK_ROWS):
        yield slice(start, min(start + _CHUNK_ROWS, count))


def refuse_sharded(model: nn.Module, *, method: str) -> None:
    """Refuse a model whose replicas do not hold the same parameters.

    Args:
        model: The model to train.
        method: What compares or averages the replicas' parameters, such as "HDET".

    Raises:
        ValueError: If a table is cut over several ranks: its rows differ by intent, so averaging
            them would mix unlike rows.
    """
    for name, module in model.named_modules():
        if isinstance(module, ShardedEmbedding) and module.size > 1:
            raise ValueError(
                f"{method} needs equal parameters on all replicas, but {name or 'the model'!r} is a"
                f" table cut over {module.size} ranks; train it plainly data-parallel"
                " (hdet=HdetConfig(spread_fraction=0, auto_lr=False), adascale=None) or replicate"
                " the table"
            )
