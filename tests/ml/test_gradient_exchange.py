"""The exchange of gradients: every value against the dense, clipped mean in float64."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.training.collectives import Collectives, SingleReplica
from ml.training.gradients import Exchanged, GradientExchange
from ml.training.norms import clip_factor, square_norm
from ml.training.replicated import Replicated
from ml.training.tables.sparse_tables import Tables
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.table_job import TABLES, TableNetwork

NUM_ROWS, WIDTH = 6, 3
LOSSES, WEIGHTS = (3.5, 1.25), (5.0, 2.0)


class Model(nn.Module):
    """Hold a matrix, a vector, a replicated table and a sharded one."""

    def __init__(self) -> None:
        """Build all four."""
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(2, 4))
        self.vector = nn.Parameter(torch.zeros(5))
        self.table = nn.Embedding(NUM_ROWS, WIDTH, sparse=True)
        self.shard = ShardedEmbedding(NUM_ROWS, WIDTH)


def _sparse(rows: list[int], values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), values, (NUM_ROWS, WIDTH), check_invariants=True
    )


def _gradients(rank: int) -> list[Tensor]:
    """Return a replica's own gradients of the four; rows of the tables stand twice."""
    generator = torch.Generator().manual_seed(rank)
    matrix, vector = (torch.randn(size, generator=generator) for size in ((2, 4), (5,)))
    rows, own = [4, 1, 4 - rank], [2, 2, rank]
    tables = [_sparse(r, torch.randn(3, WIDTH, generator=generator)) for r in (rows, own)]
    return [matrix, vector, *tables]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Hold what an exchange gave.

    Attributes:
        found: What it told.
        gradients: What it left in place, dense.
    """

    found: Exchanged
    gradients: list[Tensor]


def _exchanged(
    replicas: Collectives, *, clip_norm: float, is_shared: bool = True, steps: int = 1
) -> Outcome:
    """Exchange the same gradients some times over."""
    model = Model()
    weights = [model.matrix, model.vector, model.table.weight, model.shard.weight]
    exchange = GradientExchange(
        weights[:2],
        collectives=replicas,
        is_shared=is_shared,
        clip_norm=clip_norm,
        tables=Tables.of(model),
    )
    loss, weight = torch.tensor(LOSSES[replicas.rank]), torch.tensor(WEIGHTS[replicas.rank])
    found = None
    for _ in range(steps):
        for parameter, gradient in zip(weights, _gradients(replicas.rank), strict=True):
            parameter.grad = gradient
        found = exchange.finish(loss, weight)
    assert found is not None
    own = [parameter.grad for parameter in weights if parameter.grad is not None]
    return Outcome(found=found, gradients=[g.to_dense() for g in own])


def _expected(ranks: list[int], rank: int, clip_norm: float) -> tuple[list[Tensor], float]:
    """Return the clipped mean gradients of a replica, and the factor of the clipping."""
    dense = [[g.to_dense().double() for g in _gradients(r)] for r in range(2)]
    weight = sum(WEIGHTS[r] for r in ranks)
    mean = [torch.stack([dense[r][k] for r in ranks]).sum(0) / weight for k in range(3)]
    # Of the sharded table each replica holds the sums of rows of its own.
    shards = {r: dense[r][3] / weight for r in ranks}
    norm = math.sqrt(sum(float(g.square().sum()) for g in (*mean, *shards.values())))
    factor = min(1.0, clip_norm / (norm + 1e-6))
    return [g * factor for g in (*mean, shards[rank])], factor


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("clip_norm", [0.1, 1e9])
@pytest.mark.parametrize("size", [1, 2])
def test_every_gradient_becomes_the_clipped_mean(size: int, clip_norm: float, steps: int) -> None:
    def run(replicas: ThreadReplicas) -> Outcome:
        return _exchanged(replicas, clip_norm=clip_norm, steps=steps)

    outcomes = (
        [_exchanged(SingleReplica(), clip_norm=clip_norm, steps=steps)]
        if size == 1
        else on_replicas(size, run)
    )
    for rank, outcome in enumerate(outcomes):
        expected, factor = _expected(list(range(size)), rank, clip_norm)
        assert (factor < 1) == (clip_norm == 0.1)
        for gradient, wanted in zip(outcome.gradients, expected, strict=True):
            torch.testing.assert_close(gradient.double(), wanted, rtol=1e-6, atol=1e-8)
        assert outcome.found.loss == sum(LOSSES[:size])
        assert outcome.found.weight == sum(WEIGHTS[:size])
        assert outcome.found.is_finite and outcome.found.own_is_finite
    for one, other in zip(outcomes[0].gradients[:3], outcomes[-1].gradients[:3], strict=True):
        assert torch.equal(one, other)


def test_replicas_that_share_nothing_keep_their_own_means() -> None:
    def run(replicas: ThreadReplicas) -> list[Tensor]:
        parameter = nn.Parameter(torch.zeros(2, 4))
        exchange = GradientExchange(
            [parameter], collectives=replicas, is_shared=False, clip_norm=1e9
        )
        parameter.grad = _gradients(replicas.rank)[0]
        exchange.finish(torch.tensor(1.0), torch.tensor(WEIGHTS[replicas.rank]))
        return [parameter.grad]

    for rank, (gradient,) in enumerate(on_replicas(2, run)):
        torch.testing.assert_close(gradient, _gradients(rank)[0] / WEIGHTS[rank])


def test_what_was_put_aside_counts_once() -> None:
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))
    exchange = GradientExchange(
        [first, second], collectives=SingleReplica(), is_shared=True, clip_norm=1e9
    )
    (first * torch.tensor([2.0, 4.0, 6.0])).sum().backward()
    assert [g.tolist() for g in exchange.hold()] == [[2, 4, 6], [0, 0]]
    ((first * 4).sum() + (second * 8).sum()).backward()
    assert [g.tolist() for g in exchange.hold()] == [[4, 4, 4], [8, 8]]
    for _ in range(2):
        found = exchange.finish(torch.tensor(1.0), torch.tensor(2.0))
        assert first.grad is not None and second.grad is not None
        assert [first.grad.tolist(), second.grad.tolist()] == [[3, 4, 5], [4, 4]]
        assert float(found.mean) == pytest.approx(math.sqrt(9 + 16 + 25 + 16 + 16))
        # The second time the same sums come in one piece.
        first.grad, second.grad = first.grad * 2, second.grad * 2


def test_one_replica_copies_no_gradient() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    exchange = GradientExchange(
        [parameter], collectives=SingleReplica(), is_shared=True, clip_norm=1.0
    )
    gradient = parameter.grad = torch.ones(4)
    exchange.finish(torch.tensor(1.0), torch.tensor(4.0))
    assert parameter.grad is gradient
    assert gradient.tolist() == [0.25] * 4


@pytest.mark.parametrize("place", [1, 2])
def test_a_replica_knows_that_only_its_own_gradient_is_infinite(place: int) -> None:
    """`place` 1 is a dense gradient, 2 that of a replicated table."""

    def run(replicas: ThreadReplicas) -> tuple[bool, bool]:
        model = Model()
        weights = [model.matrix, model.vector, model.table.weight]
        exchange = GradientExchange(
            weights[:2],
            collectives=replicas,
            is_shared=True,
            clip_norm=1.0,
            tables=Tables.of(model),
        )
        for parameter, gradient in zip(weights, _gradients(replicas.rank), strict=False):
            parameter.grad = gradient
        if replicas.rank == 1:
            spoilt = weights[place].grad
            assert spoilt is not None
            (spoilt._values() if spoilt.is_sparse else spoilt)[0] = math.inf
        found = exchange.finish(torch.tensor(1.0), torch.tensor(1.0))
        return found.is_finite, found.own_is_finite

    assert on_replicas(2, run) == [(False, True), (False, False)]


def test_a_dense_gradient_of_a_sparse_table_is_refused() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    (table.weight**2).sum().backward()
    exchange = GradientExchange(
        [], collectives=SingleReplica(), is_shared=True, clip_norm=1.0, tables=Tables.of(table)
    )
    with pytest.raises(ValueError, match="use its weight for look-ups only"):
        exchange.finish(torch.tensor(1.0), torch.tensor(1.0))


@pytest.mark.parametrize("kind", ["sparse", "sharded"])
def test_a_table_of_two_modules_is_exchanged_once(kind: str) -> None:
    def made() -> nn.Embedding | ShardedEmbedding:
        return ShardedEmbedding(5, 3) if kind == "sharded" else nn.Embedding(5, 3, sparse=True)

    model = nn.ModuleDict({"one": made(), "two": made()})
    model["two"].weight = model["one"].weight
    model["one"](torch.tensor([1])).sum().backward()
    tables = Tables.of(model)
    exchange = GradientExchange(
        [], collectives=SingleReplica(), is_shared=True, clip_norm=1e9, tables=tables
    )
    exchange.finish(torch.tensor(1.0), torch.tensor(4.0))
    assert len(tables.weights) == 1
    assert tables.weights[0].grad is not None
    assert tables.weights[0].grad.to_dense()[1].tolist() == [0.25] * 3


def test_the_norm_of_many_equal_numbers_is_exact() -> None:
    # In float32 the sum of 8 million squares of 0.001 is 0.6 % too large, its root 0.3 %.
    gradient = torch.full((1 << 23,), 1e-3)
    exact = math.sqrt(1 << 23) * float(gradient[0])
    assert float(square_norm([gradient]).sqrt()) == pytest.approx(exact, rel=1e-12)
    parameter = nn.Parameter(torch.zeros_like(gradient))
    exchange = GradientExchange(
        [parameter], collectives=SingleReplica(), is_shared=True, clip_norm=1.0
    )
    parameter.grad = gradient
    found = exchange.finish(torch.tensor(1.0), torch.tensor(1.0))
    assert float(found.mean) == pytest.approx(exact, rel=1e-12)
    assert parameter.grad[0].item() == pytest.approx(1e-3 / exact, rel=1e-6)


def test_a_norm_counts_every_piece_once() -> None:
    sizes = [0, 1, (1 << 16) - 1, 1 << 16, (1 << 17) + 3]
    parts = [torch.full((size,), 1.0 + place) for place, size in enumerate(sizes)]
    exact = sum(size * (1.0 + place) ** 2 for place, size in enumerate(sizes))
    assert float(square_norm(parts)) == pytest.approx(exact, rel=1e-14)
    assert float(square_norm([parts[3].view(256, 256).T])) == pytest.approx(16.0 * (1 << 16))


def test_only_what_is_too_long_is_clipped() -> None:
    assert clip_factor(4.0, clip_norm=1.0) == pytest.approx(0.25)
    assert clip_factor(0.5, clip_norm=1.0) == clip_factor(0.0, clip_norm=1.0) == 1.0


def test_a_frozen_sharded_table_needs_every_batch_and_as_many_ranks() -> None:
    def run(replicas: ThreadReplicas) -> bool:
        model = TableNetwork("sharded")
        model.ids.weight.requires_grad_(False)
        with pytest.raises(ValueError, match="'ids' is cut over 1 ranks, and 2 replicas train it"):
            Replicated(model, TABLES, replicas=replicas)
        assert isinstance(model.ids, ShardedEmbedding)
        model.ids.size = 2
        return Replicated(model, TABLES, replicas=replicas).needs_every_batch

    assert on_replicas(2, run) == [True, True]
