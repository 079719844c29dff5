"""Sparse exchanges between replicas, which are threads here, against dense ones."""

import json

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ml.training.collectives import Collectives, SingleReplica
from ml.training.hdet.tables import ConvergedTables
from ml.training.tables.touched_rows import TouchedRows, sum_sparse
from tests.ml.replica_threads import ThreadReplicas, on_replicas

WIDTH = 4


class Counting:
    """Count the bytes that this replica gives away."""

    def __init__(self, replicas: Collectives) -> None:
        """Pass everything on to other replicas."""
        self.rank, self.size, self.num_bytes = replicas.rank, replicas.size, 0
        self._replicas = replicas

    def sum(self, tensor: Tensor) -> Tensor:
        return self._replicas.sum(self._counted(tensor))

    def maximum(self, tensor: Tensor) -> Tensor:
        return self._replicas.maximum(self._counted(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        return self._replicas.gather(self._counted(tensor))

    def broadcast(self, tensor: Tensor) -> None:
        self._replicas.broadcast(self._counted(tensor))

    def _counted(self, tensor: Tensor) -> Tensor:
        self.num_bytes += tensor.numel() * tensor.element_size()
        return tensor


def _sparse(rows: list[int], values: Tensor, num_rows: int) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), values, (num_rows, values.shape[1]), check_invariants=True
    )


def _moved_table(rank: int, rows: list[int], num_rows: int) -> Tensor:
    """Return the common table with this replica's own values in its touched rows."""
    table = torch.randn(num_rows, WIDTH, generator=torch.Generator().manual_seed(0))
    table[rows] += torch.randn(
        len(rows), WIDTH, generator=torch.Generator().manual_seed(100 + rank)
    )
    return table


def _rows_of(rank: int, *, few: bool) -> list[int]:
    """Return the rows that a replica touches; few of them travel as numbers, many as a mask."""
    return [3, 10 + 7 * rank] if few else list(range(5 * rank, 200 + 30 * rank))


def _converge(
    touched: TouchedRows, table: Tensor, replicas: Collectives, *, sums: Tensor | None = None
) -> None:
    """Let a table and its accumulators meet as HDET's do."""
    weight = nn.Parameter(table)  # shares its storage
    optimizer = SGD([weight], lr=1.0)
    if sums is not None:
        optimizer.state[weight]["sums"] = sums
    tables = ConvergedTables(optimizer, replicas, {weight: touched})
    tables.average([True] * replicas.size, with_moments=True)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("few", [True, False])
def test_converge_is_bit_equal_to_averaging_the_whole_table(size: int, few: bool) -> None:
    num_rows = 400

    def run(replicas: ThreadReplicas) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        rows = _rows_of(replicas.rank, few=few)
        table = _moved_table(replicas.rank, rows, num_rows)
        sums = torch.zeros(num_rows)
        sums[rows] = replicas.rank + 1.0
        whole = replicas.sum(table) / replicas.size
        touched = TouchedRows(num_rows)
        touched.note(_sparse(rows, torch.ones(len(rows), WIDTH), num_rows))
        rows_T = touched.union(replicas)
        _converge(touched, table, replicas, sums=sums)
        assert touched.state_dict() == []
        return table, whole, sums, rows_T.tolist()

    union = sorted({row for rank in range(size) for row in _rows_of(rank, few=few)})
    for table, whole, sums, rows in on_replicas(size, run):
        assert torch.equal(table, whole)
        assert rows == union
        assert float(sums[3]) == sum(
            (rank + 1) / size for rank in range(size) if 3 in _rows_of(rank, few=few)
        )


def test_untouched_rows_of_three_replicas_keep_their_last_bit() -> None:
    def run(replicas: ThreadReplicas) -> tuple[bool, bool]:
        table = _moved_table(replicas.rank, [], 300)
        before, mean = table.clone(), replicas.sum(table) / replicas.size
        touched = TouchedRows(300)
        touched.note(_sparse([7], torch.ones(1, WIDTH), 300))
        _converge(touched, table, replicas)
        others = torch.arange(300) != 7
        return torch.equal(table[others], before[others]), torch.equal(mean, before)

    assert on_replicas(3, run) == [(True, False)] * 3


def test_exchanged_bytes_follow_the_touched_rows_and_not_the_table() -> None:
    def bytes_of(num_rows: int, count: int) -> int:
        def run(replicas: ThreadReplicas) -> int:
            counting = Counting(replicas)
            rows = list(range(replicas.rank, count + replicas.rank))
            table = _moved_table(replicas.rank, rows, num_rows)
            touched = TouchedRows(num_rows)
            touched.note(_sparse(rows, torch.ones(count, WIDTH), num_rows))
            _converge(touched, table, counting)
            return counting.num_bytes

        first, second = on_replicas(2, run)
        assert first == second
        return first

    # 8 bytes for the count; a number per row, or a byte per row of the table; 16 bytes per vector.
    assert bytes_of(100_000, 9) == 8 + 9 * 8 + 10 * 16
    assert bytes_of(100_000, 99) == 8 + 99 * 8 + 100 * 16
    assert bytes_of(200_000, 99) == bytes_of(100_000, 99)
    assert bytes_of(1_000, 499) == 8 + 1_000 + 500 * 16
    assert bytes_of(100_000, 0) == 8


def test_a_dense_gradient_touches_its_rows_that_are_not_zero() -> None:
    touched = TouchedRows(4)
    gradient = torch.zeros(4, WIDTH)
    gradient[2, 3] = -1e-30
    touched.note(gradient)
    touched.note(_sparse([0, 0], torch.ones(2, WIDTH), 4))
    assert touched.union(SingleReplica()).tolist() == [0, 2]


def test_a_single_replica_keeps_its_table_and_forgets() -> None:
    table = torch.rand(4, WIDTH)
    before, touched = table.clone(), TouchedRows(4)
    touched.note(_sparse([1], torch.ones(1, WIDTH), 4))
    _converge(touched, table, SingleReplica())
    assert torch.equal(table, before)
    assert touched.state_dict() == []


def test_state_goes_through_json() -> None:
    touched, resumed = TouchedRows(9), TouchedRows(9)
    touched.note(_sparse([8, 2], torch.ones(2, WIDTH), 9))
    resumed.note(_sparse([5], torch.ones(1, WIDTH), 9))
    resumed.load_state_dict(json.loads(json.dumps(touched.state_dict())))
    assert resumed.union(SingleReplica()).tolist() == [2, 8]
    with pytest.raises(ValueError, match="up to 8, the table has 4"):
        TouchedRows(4).load_state_dict(touched.state_dict())


def test_another_tables_gradient_is_refused() -> None:
    touched = TouchedRows(4)
    with pytest.raises(ValueError, match="5 rows, not 4"):
        touched.note(torch.zeros(5, WIDTH))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sparse_sum_is_bit_equal_to_the_dense_one(size: int) -> None:
    rows_of = [[4, 1, 4], [9, 2, 5, 1, 2], []]

    def run(replicas: ThreadReplicas) -> tuple[Tensor, Tensor, int]:
        generator = torch.Generator().manual_seed(replicas.rank)
        rows = rows_of[replicas.rank]
        count = len(rows)
        gradient = _sparse(rows, torch.randn(count, WIDTH, generator=generator), 50)
        counting = Counting(replicas)
        total = sum_sparse(gradient, counting)
        assert total.is_coalesced()
        assert total.indices()[0].tolist() == sorted(set().union(*rows_of[:size]))
        return total.to_dense(), replicas.sum(gradient.to_dense()), counting.num_bytes

    for total, dense, num_bytes in on_replicas(size, run):
        assert torch.equal(total, dense)
        assert num_bytes <= 8 + 5 * (8 + 4 * WIDTH)


def test_a_dense_gradient_is_not_summed_as_a_sparse_one() -> None:
    with pytest.raises(ValueError, match="not sparse in its rows"):
        sum_sparse(torch.ones(2, 2), SingleReplica())
    with pytest.raises(ValueError, match="not sparse in its rows"):
        sum_sparse(torch.ones(2, 2).to_sparse(), SingleReplica())
