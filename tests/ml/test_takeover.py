"""A training that goes on from another one's checkpoint: its steps and weights, its own decay."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ml.training.checkpoint import (
    load_model,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
)
from ml.training.parameters import parameter_groups
from ml.training.takeover import take_over


def _trained(weight_decay: float, steps: int) -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(steps)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=weight_decay), lr=0.1)
    for _ in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def test_the_other_checkpoint_is_the_only_one_and_the_decay_is_the_takers(tmp_path: Path) -> None:
    giver, taker = _trained(0.5, 4), _trained(0.01, 7)
    others = save_checkpoint(
        tmp_path / "any_name", giver[0], optimizer=giver[1], state={"history": [{"step": 4.0}]}
    )
    own = tmp_path / "checkpoints"
    save_checkpoint(
        own / "step-000000007", taker[0], optimizer=taker[1], state={"history": [{"step": 7.0}]}
    )
    copy = take_over(others, own, weight_decay=0.02)
    assert newest_checkpoint(own) == copy == own / "step-000000004"
    assert [path.name for path in own.iterdir()] == ["step-000000004"]
    model, optimizer = _trained(0.02, 0)
    load_model(copy, model)
    load_optimizer(copy, optimizer)
    assert torch.equal(model.weight, giver[0].weight)
    state = optimizer.state[model.weight]
    assert torch.equal(state["exp_avg"], giver[1].state[giver[0].weight]["exp_avg"])
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"dense": 0.02, "no_decay": 0.0}
    assert load_state(copy) == load_state(others) == {"history": [{"step": 4.0}]}
    load_optimizer(others, optimizer)  # the giver's own is as it was
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_a_checkpoint_that_cannot_be_copied_whole_costs_the_taker_nothing(tmp_path: Path) -> None:
    without_optimizer = save_checkpoint(
        tmp_path / "others", nn.Linear(3, 2), state={"history": [{"step": 9.0}]}
    )
    own = tmp_path / "checkpoints"
    kept = save_checkpoint(own / "step-000000007", nn.Linear(3, 2))
    with pytest.raises(FileNotFoundError):
        take_over(without_optimizer, own, weight_decay=0.02)
    assert newest_checkpoint(own) == kept
    assert list(own.iterdir()) == [kept]
