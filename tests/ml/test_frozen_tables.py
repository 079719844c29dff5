"""Sharded tables that are not trained: their rows are saved and looked up all the same."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.optimizers import build_optimizer
from ml.training.replicated import Replicated
from ml.training.tables.files import whole_weights
from ml.training.tables.sparse_tables import Tables
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.table_job import HDET, TABLES, KilledError, TableNetwork, killed_at
from tests.ml.toy_job import CONFIG, run_training, toy_job, weights_of

SHARED = replace(CONFIG, checkpoints=CheckpointConfig(steps=4, keep_last=9))


class TwoTables(TableNetwork):
    """Add a table that is trained to one that is frozen."""

    def __init__(self) -> None:
        """Build both."""
        super().__init__("sharded")
        self.trained = ShardedEmbedding(4, 1, seed=5)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the prediction, [B, 1]."""
        return super().forward(numbers) + self.trained((numbers[:, 1] > 0).long())


def _frozen(model: TableNetwork, *, scale: float) -> TableNetwork:
    """Return a model whose first table is frozen at rows that no new model has."""
    with torch.no_grad():
        model.ids.weight.mul_(scale)
    model.ids.weight.requires_grad_(False)
    return model


def _made(kind: str, *, scale: float) -> TableNetwork:
    model = TwoTables() if kind == "beside a trained one" else TableNetwork("sharded")
    return _frozen(model, scale=scale)


@pytest.mark.parametrize(
    ("kind", "config"), [("alone", SHARED), ("beside a trained one", TABLES)], ids=["one", "two"]
)
def test_a_frozen_table_goes_on_with_its_rows(
    tmp_path: Path, kind: str, config: TrainConfig
) -> None:
    whole = _made(kind, scale=2.0)
    before = whole.ids.weight.clone()
    run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), config)
    assert torch.equal(whole.ids.weight, before)
    job = toy_job(tmp_path / "parts", SingleReplica())
    with pytest.raises(KilledError):
        run_training(_made(kind, scale=2.0), killed_at(job, 9), config)
    parts = _made(kind, scale=1.0)
    run_training(parts, job, config)
    assert torch.equal(weights_of(parts), weights_of(whole))
    last = sorted(job.folder.glob("step-*"))[-1]
    assert torch.equal(whole_weights(last)["ids.weight"], before)


def test_a_frozen_table_is_listed_and_not_trained() -> None:
    model = _made("beside a trained one", scale=1.0)
    tables = Tables.of(model)
    assert sorted(tables.sharded) == ["ids", "trained"]
    assert [id(weight) for weight in tables.weights] == [id(model.get_parameter("trained.weight"))]
    groups = build_optimizer(model, TABLES).param_groups
    optimized = {id(parameter) for group in groups for parameter in group["params"]}
    assert optimized == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_copy_of_a_cut_table_is_refused_as_the_table_is() -> None:
    def run(replicas: ThreadReplicas) -> None:
        model = copy.deepcopy(TableNetwork("sharded"))
        assert isinstance(model.ids, ShardedEmbedding)
        model.ids.size = 2
        Replicated(model, replace(TABLES, hdet=HDET), replicas=replicas)

    with pytest.raises(ValueError, match="'ids' is a table cut over 2 ranks"):
        on_replicas(2, run)


def test_a_model_of_frozen_tables_only_has_none_to_train_by_rows() -> None:
    with pytest.raises(ValueError, match="for trained tables"):
        build_optimizer(_made("alone", scale=1.0), TABLES)
    with pytest.raises(KeyError, match="all tables are frozen"):
        optimizer = build_optimizer(_made("alone", scale=1.0), SHARED)
        optimizer.accumulator(nn.Parameter())  # pyright: ignore[reportAttributeAccessIssue]
