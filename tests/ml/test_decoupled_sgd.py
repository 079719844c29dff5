"""SGD with a decay of its own: by hand, against torch, and as its groups are seen from outside."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ml.training.checkpoint import load_optimizer, read_optimizer, save_checkpoint
from ml.training.config import TrainConfig
from ml.training.decoupled_sgd import DecoupledSGD
from ml.training.engines import with_adascale
from ml.training.hdet.hyper_parameters import weight_decay_of
from ml.training.optimizers import build_optimizer
from ml.training.takeover import take_over


def _parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("fused", [False, True])
def test_decay_shrinks_weights_by_rate_times_decay_and_leaves_the_momentum_alone(
    fused: bool,
) -> None:
    weight = _parameter(2.0)
    optimizer = DecoupledSGD([weight], lr=0.5, momentum=0.9, weight_decay=0.1, fused=fused)
    weight.grad = torch.tensor([1.0], dtype=torch.float64)
    optimizer.step()
    assert weight.item() == pytest.approx(2 * 0.95 - 0.5)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert weight.item() == pytest.approx(1.4 * 0.99 - 0.1 * 1.9)
    assert optimizer.state[weight]["momentum_buffer"].item() == pytest.approx(1.9)


def test_without_decay_it_is_torchs_sgd_to_the_bit() -> None:
    ours, theirs = _parameter(0.3, -2.0), _parameter(0.3, -2.0)
    steps = (
        DecoupledSGD([ours], lr=0.3, momentum=0.9),
        torch.optim.SGD([theirs], lr=0.3, momentum=0.9),
    )
    for number in range(4):
        ours.grad = theirs.grad = torch.sin(torch.arange(2, dtype=torch.float64) + number)
        for optimizer in steps:
            optimizer.step()
    assert torch.equal(ours, theirs)


def test_a_parameter_without_a_gradient_is_not_decayed() -> None:
    moved, still = _parameter(1.0), _parameter(1.0)
    optimizer = DecoupledSGD([moved, still], lr=0.5, weight_decay=0.1)
    moved.grad = torch.zeros(1, dtype=torch.float64)
    optimizer.step()
    assert [moved.item(), still.item()] == [0.95, 1.0]


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    weight = _parameter(1.0)
    optimizer = DecoupledSGD([weight], lr=0.5, weight_decay=0.1)

    def closure() -> float:
        loss = 2 * weight.sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert weight.item() == pytest.approx(0.95 - 1.0)


def test_the_decay_can_be_varied_saved_and_taken_over(tmp_path: Path) -> None:
    config = TrainConfig(optimizer="sgd", learning_rate=0.5, momentum=0.0, weight_decay=0.1)

    def step(optimizer: DecoupledSGD, weight: torch.Tensor) -> float:
        nn.init.ones_(weight)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        return weight.detach().unique().item()

    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, DecoupledSGD)
    weight_decay_of(optimizer).set(0.4)
    assert step(optimizer, model.weight) == pytest.approx(1 - 0.5 * 0.4)
    state = {"history": [{"step": 7}]}
    save_checkpoint(tmp_path / "one", model, optimizer=optimizer, state=state)
    assert [g["weight_decay"] for g in read_optimizer(tmp_path / "one")["param_groups"]] == [0.4, 0]
    other = nn.Linear(2, 2)
    again = build_optimizer(other, config)
    assert isinstance(again, DecoupledSGD)
    load_optimizer(take_over(tmp_path / "one", tmp_path / "two", weight_decay=0.2), again)
    assert step(again, other.weight) == pytest.approx(1 - 0.5 * 0.2)


def test_adascale_keeps_what_a_step_decays() -> None:
    training = replace(TrainConfig(), learning_rate=3e-3, weight_decay=0.2)
    changed = with_adascale(training, learning_rate=0.5)
    assert changed.weight_decay * 0.5 == pytest.approx(3e-3 * 0.2)
    model = nn.Linear(4, 4, bias=False)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, changed)
    for _ in range(100):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 6e-4) ** 100)
