"""Replicas that start apart begin their training with all that replica 0 holds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ml.training.checkpoint import save_checkpoint
from ml.training.replicated import Replicated
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.toy_job import CONFIG


def _model(rank: int) -> nn.Module:
    """Return a model of which everything depends on the replica, a frozen weight and buffers too.

    Its first replica has a number that nothing may touch, the second one that spoils sums.
    """
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with torch.no_grad():
        for place, tensor in enumerate((*model.parameters(), *model.buffers())):
            tensor.fill_(10 * rank + place)
        next(model.parameters())[0, 0] = (1e-30, torch.inf)[rank]
    model[2].bias.requires_grad_(False)
    return model


def test_frozen_weights_and_buffers_are_replica_0s_too_and_infinities_spoil_nothing() -> None:
    def start(replicas: ThreadReplicas) -> dict[str, Tensor]:
        model = _model(replicas.rank)
        Replicated(model, CONFIG, replicas=replicas)
        return model.state_dict()

    for state in on_replicas(2, start):
        for name, tensor in _model(0).state_dict().items():
            assert torch.equal(state[name], tensor), name


def test_a_checkpoint_that_one_replica_cannot_read_is_read_by_none(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    whole = tmp_path / "whole"
    save_checkpoint(whole, model, optimizer=SGD(model.parameters()), state={}, texts={})

    def load(replicas: ThreadReplicas) -> str:
        own = nn.Linear(2, 1)
        held = Replicated(own, CONFIG, replicas=replicas)
        folder = whole if replicas.rank == 0 else tmp_path / "missing"
        with pytest.raises(OSError) as caught:
            held.load(folder, SGD(own.parameters()))
        return str(caught.value)

    first, second = on_replicas(2, load)
    assert "replica 1 could not read" in first
    assert "missing" in second
