"""HDET's meeting of embedding tables: the rows that changed, and what it refuses."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.training.collectives import SingleReplica
from ml.training.hdet.config import HdetConfig
from ml.training.hdet.scheduler import HDETScheduler
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad
from ml.training.tables.touched_rows import TouchedRows
from tests.ml.replica_threads import ThreadReplicas, on_replicas

NUM_ROWS, WIDTH, STEPS = 50, 4, 6
LOCAL = HdetConfig(sync_steps=3, spread_fraction=0.3, auto_lr=False, gradient_sync="local")


class Counting(ThreadReplicas):
    """Count the bytes of every exchange."""

    bytes = 0

    def gather(self, tensor: Tensor) -> Tensor:
        self.bytes += tensor.numel() * tensor.element_size()
        return super().gather(tensor)


def _start() -> Tensor:
    return torch.randn(NUM_ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


class Replica:
    """Hold a table and a scheduler, and take steps on a few rows of its own."""

    def __init__(
        self, replicas: ThreadReplicas, config: HdetConfig = LOCAL, *, whole: bool = False
    ) -> None:
        """Take a place among the replicas; `whole` lets the table meet as a whole."""
        self.replicas = Counting(replicas.rank, replicas._board, replicas._barrier)
        self.table = nn.Parameter(_start())
        self.bias = nn.Parameter(torch.zeros(3))
        self.optimizer = RowwiseAdagrad([self.table, self.bias], lr=0.1)
        self.touched = TouchedRows(NUM_ROWS)
        self.scheduler = HDETScheduler(
            self.optimizer,
            0.1,
            total_steps=STEPS,
            cycle_momentum=False,
            config=config,
            collectives=self.replicas,
            touched=None if whole else {self.table: self.touched},
        )

    def step(self, number: int, *, poison: bool = False) -> None:
        self.optimizer.zero_grad()
        rows = torch.tensor([self.replicas.rank, 10 + number])
        values = (self.table[rows].detach() + 0.1 * number).mul(math.nan if poison else 1.0)
        gradient = torch.sparse_coo_tensor(
            rows[None], values, self.table.shape, check_invariants=True
        )
        self.table.grad = gradient.coalesce()
        self.bias.grad = torch.ones(3) * self.replicas.rank
        self.optimizer.step()
        self.scheduler.step(1.0)

    def result(self) -> tuple[Tensor, Tensor, int]:
        sums = self.optimizer.accumulator(self.table).clone()
        return self.table.detach().clone(), sums, self.replicas.bytes


def _trained(
    config: HdetConfig = LOCAL, *, whole: bool = False, size: int = 2
) -> list[tuple[Tensor, Tensor, int]]:
    def run(replicas: ThreadReplicas) -> tuple[Tensor, Tensor, int]:
        replica = Replica(replicas, config, whole=whole)
        for number in range(STEPS):
            replica.step(number)
        return replica.result()

    return on_replicas(size, run)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("moments", ["average", "reset"])
def test_a_table_ends_as_one_that_met_as_a_whole(moments: str, size: int) -> None:
    config = HdetConfig(
        sync_steps=3, spread_fraction=0.3, auto_lr=False, gradient_sync="local", moments=moments
    )
    few, all_rows = _trained(config, size=size), _trained(config, whole=True, size=size)
    for (table, sums, _), (whole, whole_sums, _) in zip(few, all_rows, strict=True):
        assert torch.equal(table, whole)
        assert torch.equal(sums, whole_sums)
    assert torch.equal(few[0][0], few[1][0])
    assert not torch.equal(few[0][0], _start())


def test_rows_that_no_gradient_reached_are_not_sent() -> None:
    few, whole = _trained()[0][2], _trained(whole=True)[0][2]
    # Whole: two meetings send table and accumulators, 50 x 5 numbers of 4 bytes. Few: rows 0, 1
    # and three more, so 5 x 5 numbers, a mask of 50 bytes, and a count of 8.
    assert whole - few == 2 * (50 * 5 * 4 - (5 * 5 * 4 + 50 + 8))


def test_a_replica_with_rows_that_are_not_finite_takes_those_of_the_others() -> None:
    def run(replicas: ThreadReplicas) -> Tensor:
        replica = Replica(replicas)
        for number in range(3):
            replica.step(number, poison=number == 1 and replicas.rank == 1)
        return replica.table.detach().clone()

    first, second = on_replicas(2, run)
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert torch.equal(first[1], _start()[1]), "only the replica that was left out moved row 1"


def test_initial_noise_makes_all_rows_meet() -> None:
    noisy = HdetConfig(
        sync_steps=3, spread_fraction=0.0, auto_lr=False, gradient_sync="local", noise_fraction=0.1
    )

    def run(replicas: ThreadReplicas) -> Tensor:
        replica = Replica(replicas, noisy)
        with torch.no_grad():
            replica.table.add_(0.01 * replicas.rank)
        for number in range(3):
            replica.step(number)
        return replica.table.detach().clone()

    first, second = on_replicas(2, run)
    assert torch.equal(first, second)


def test_a_state_within_a_window_knows_the_rows() -> None:
    def run(replicas: ThreadReplicas) -> tuple[list[list[int]], bool, bool]:
        replica, again = Replica(replicas), Replica(replicas)
        replica.step(0)
        state = replica.scheduler.state_dict()
        again.scheduler.load_state_dict(state)
        rows = again.touched.state_dict()
        replica.step(1)
        replica.step(2)
        return (
            state["touched"],
            rows == state["touched"][0],
            "touched" in replica.scheduler.state_dict(),
        )

    for rank, (rows, is_kept, stays) in enumerate(on_replicas(2, run)):
        assert rows == [[rank, 10]]
        assert is_kept
        assert not stays


@pytest.mark.parametrize(
    ("optimizer", "remedy"),
    [
        (lambda p: torch.optim.AdamW([p]), "RowwiseAdagrad"),
        (lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9), "momentum"),
        (lambda p: torch.optim.SGD([p], lr=0.1, weight_decay=0.1), "weight decay"),
    ],
)
def test_an_optimizer_that_moves_every_row_is_refused(
    optimizer: Callable[[nn.Parameter], torch.optim.Optimizer], remedy: str
) -> None:
    table = nn.Parameter(_start())
    with pytest.raises(ValueError, match=remedy):
        HDETScheduler(
            optimizer(table),
            0.1,
            total_steps=9,
            cycle_momentum=False,
            touched={table: TouchedRows(NUM_ROWS)},
        )


def test_the_scheduler_refuses_rows_of_a_cut_table() -> None:
    table = ShardedEmbedding(NUM_ROWS, WIDTH)
    assert getattr(table.weight, "row_shards", None) == 1
    setattr(table.weight, "row_shards", 2)  # noqa: B010

    def run(replicas: ThreadReplicas) -> None:
        HDETScheduler(
            RowwiseAdagrad([table.weight]),
            0.1,
            total_steps=9,
            cycle_momentum=False,
            config=LOCAL,
            collectives=replicas,
        )

    with pytest.raises(ValueError, match="sharded over the replicas"):
        on_replicas(2, run)
    HDETScheduler(
        RowwiseAdagrad([table.weight]),
        0.1,
        total_steps=9,
        cycle_momentum=False,
        config=LOCAL,
        collectives=SingleReplica(),
    )
