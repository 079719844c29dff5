"""Row-wise Adagrad against a plain loop, and its state through a checkpoint."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_optimizer, save_checkpoint
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad

ROWS, WIDTH = 6, 3


def _table() -> nn.Embedding:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, WIDTH, generator=generator)
    return nn.Embedding(ROWS, WIDTH, sparse=True, _weight=weight)


def _gradients(step: int) -> list[tuple[int, list[float]]]:
    """Return (row, gradient) pairs of one step; row 2 stands twice, row 5 never."""
    generator = torch.Generator().manual_seed(1 + step)
    rows = [2, step % 2, 2, 4 - step % 2]
    return [(row, torch.randn(WIDTH, generator=generator).tolist()) for row in rows]


def _sparse(step: int) -> Tensor:
    rows, values = zip(*_gradients(step), strict=True)
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), torch.tensor(values), (ROWS, WIDTH), check_invariants=True
    )


def _oracle(
    table: list[list[float]], *, steps: int, lr: float, eps: float, initial: float
) -> tuple[list[list[float]], list[float]]:
    """Take the steps with loops over rows and coordinates."""
    sums = [initial] * ROWS
    for step in range(steps):
        summed: dict[int, list[float]] = {}
        for row, gradient in _gradients(step):
            before = summed.get(row, [0.0] * WIDTH)
            summed[row] = [a + b for a, b in zip(before, gradient, strict=True)]
        for row, gradient in summed.items():
            sums[row] += sum(g * g for g in gradient) / WIDTH
            for place, g in enumerate(gradient):
                table[row][place] -= lr * g / (math.sqrt(sums[row]) + eps)
    return table, sums


@pytest.mark.parametrize("dense", [False, True])
def test_equals_a_plain_loop(dense: bool) -> None:
    table = _table()
    expected, sums = _oracle(table.weight.tolist(), steps=5, lr=0.3, eps=0.01, initial=0.2)
    untouched = table.weight[5].tolist()
    optimizer = RowwiseAdagrad(table.parameters(), lr=0.3, eps=0.01, initial=0.2)
    for step in range(5):
        table.weight.grad = _sparse(step).to_dense() if dense else _sparse(step)
        optimizer.step()
    torch.testing.assert_close(table.weight.detach(), torch.tensor(expected))
    torch.testing.assert_close(optimizer.accumulator(table.weight), torch.tensor(sums))
    assert table.weight[5].tolist() == untouched
    assert float(optimizer.accumulator(table.weight)[5]) == pytest.approx(0.2)


def test_a_first_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, 1.0]]))
    optimizer = RowwiseAdagrad([weight], lr=0.5, eps=1e-12)
    weight.grad = torch.tensor([[1.0, 7.0]])  # mean square 25, root 5
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.9, 0.3]]))


def test_a_vector_gets_torchs_adagrad() -> None:
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    optimizers = [
        RowwiseAdagrad([ours], lr=0.1, eps=1e-8),
        torch.optim.Adagrad([theirs], lr=0.1, eps=1e-8),
    ]
    for step in range(3):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.tensor([1.0, 0.0, -2.0]) * (step + 1)
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_a_gradient_without_rows_moves_nothing() -> None:
    table = _table()
    before = table.weight.detach().clone()
    optimizer = RowwiseAdagrad(table.parameters(), lr=1.0)
    table(torch.empty(0, dtype=torch.long)).sum().backward()
    optimizer.step()
    assert torch.equal(table.weight, before)


def test_a_parameter_without_gradient_is_skipped_and_a_closure_is_called() -> None:
    table, idle = _table(), nn.Parameter(torch.ones(2))
    optimizer = RowwiseAdagrad([table.weight, idle], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = table(torch.tensor([0])).sum()
        loss.backward()
        return loss.item()

    before = table.weight[0].sum().item()
    assert optimizer.step(closure) == pytest.approx(before)
    assert table.weight[0].sum().item() < before
    assert idle.tolist() == [1.0, 1.0]


def test_resumed_from_a_checkpoint_it_continues_bit_equal(tmp_path: Path) -> None:
    straight, resumed = _table(), _table()
    optimizer = RowwiseAdagrad(straight.parameters(), lr=0.1)
    for step in range(4):
        straight.weight.grad = _sparse(step)
        optimizer.step()
        if step == 1:
            save_checkpoint(tmp_path / "step-2", straight, optimizer=optimizer)
            resumed.load_state_dict(straight.state_dict())
    second = RowwiseAdagrad(resumed.parameters(), lr=9.0)
    load_optimizer(tmp_path / "step-2", second)
    for step in (2, 3):
        resumed.weight.grad = _sparse(step)
        second.step()
    assert torch.equal(straight.weight, resumed.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lr": -1.0}, "-1.0"), ({"eps": 0.0}, "eps"), ({"initial": -0.1}, "-0.1")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowwiseAdagrad([nn.Parameter(torch.ones(1))], **settings)


def test_weight_decay_and_short_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay to 0"):
        RowwiseAdagrad([{"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.1}])
    with pytest.raises(ValueError, match="float32"):
        RowwiseAdagrad([nn.Parameter(torch.ones(1, dtype=torch.bfloat16))])


def test_a_gradient_sparse_in_coordinates_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = RowwiseAdagrad([weight])
    weight.grad = torch.eye(2).to_sparse()
    with pytest.raises(ValueError, match="sparse in 2 dimensions"):
        optimizer.step()


def test_accumulators_of_a_stranger_are_refused() -> None:
    with pytest.raises(KeyError, match="no group"):
        RowwiseAdagrad([nn.Parameter(torch.ones(1))]).accumulator(torch.ones(1))
