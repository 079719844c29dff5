"""Small trainings with an embedding table: on threads, or on two real processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding, plain_table
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import RankerConfig, recipe
from ml.ranking.sequence_ranker.training import build_model, ranker_job
from ml.training.collectives import current_replicas
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.hdet.config import HdetConfig
from ml.training.job import TrainResult
from ml.training.loop import train
from ml.training.steps import in_steps
from tests.ml.sequence_examples import feature_spec, item_table, sequences
from tests.ml.toy_job import CONFIG, NO_HDET, KilledError, killed_at, run_training, toy_job

NUM_ROWS, WIDTH = 23, 3
TABLES = replace(
    CONFIG,
    table_optimizer="rowwise_adagrad",
    table_learning_rate=0.3,
    clip_norm=0.5,
    checkpoints=CheckpointConfig(steps=4, keep_last=9),
)
HDET = HdetConfig(sync_steps=3, spread_fraction=0.3)


class TableNetwork(nn.Module):
    """Predict from four numbers and the vector of an id that the first of them gives."""

    def __init__(self, kind: str) -> None:
        """Build the network; `kind` is "sparse", "sharded" or "dense"."""
        super().__init__()
        make = ShardedEmbedding if kind == "sharded" else plain_table
        self.ids = make(NUM_ROWS, WIDTH, seed=3, scale=0.3)
        if kind == "dense":
            self.ids = nn.Embedding.from_pretrained(self.ids.weight.detach(), freeze=False)
        self.head = nn.Linear(4 + WIDTH, 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(2)
            for parameter in self.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the prediction, [B, 1]."""
        ids = (numbers[:, 0].abs() * 97).long() % NUM_ROWS
        return self.head(torch.cat([numbers, self.ids(ids)], dim=1))


def ranker_inputs() -> RankerInputs:
    """Return a feed of thirty users."""
    return RankerInputs(
        train=sequences([18] * 30),
        validation=sequences([11] * 9, split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )


def ranker_recipe(name: str) -> RankerConfig:
    """Return a small recipe of fifteen batches, so that one of two workers lacks the last one."""
    config = recipe(name)
    return replace(
        config,
        model=replace(config.model, width=16, head_width=16, dropout_fraction=0.0, wide_crosses=64),
        batches=replace(config.batches, events=36, item_dropout_fraction=0.0),
        training=replace(config.training, epochs=2, hdet=NO_HDET),
    )


def train_ranker(folder: Path, config: RankerConfig) -> TrainResult:
    """Train a ranker in steps of two batches, on however many processes there are."""
    from ml.ranking.sequence_ranker.training import memory_batches

    inputs = ranker_inputs()
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=folder)
    job = in_steps(job, memory_batches(model, inputs.train, config), step_batches=2)
    return train(model, job, config.training, report=lambda *_: None, prepare=lambda m: m)


def worker(rank: int, folder: Path) -> None:
    """Train with sharded tables on one of two processes; write what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outcome: dict[str, Any] = {"whole": _network_of(_train(folder / "whole"))}
    job = toy_job(folder / "parts", current_replicas())  # type: ignore[arg-type]
    with pytest.raises(KilledError):
        run_training(TableNetwork("sharded"), killed_at(job, 9), TABLES)
    again = TableNetwork("sharded")
    with torch.no_grad():
        again.ids.weight.zero_()
    run_training(again, job, TABLES)
    outcome["parts"] = _network_of(again)
    outcome["refusals"] = _refusals(folder)
    result = train_ranker(folder / "ranker", ranker_recipe("sharded_table"))
    outcome["ranker"] = [row["validation_ne"] for row in result.history]
    torch.save(outcome, folder / f"rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _train(folder: Path) -> TableNetwork:
    model = TableNetwork("sharded")
    run_training(model, toy_job(folder, current_replicas()), TABLES)  # type: ignore[arg-type]
    return model


def _network_of(model: TableNetwork) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _refusals(folder: Path) -> dict[str, str]:
    """Return what is said of methods that compare or average whole replicas."""
    plain = TrainConfig(optimizer="sgd", hdet=NO_HDET)
    configs = {
        "hdet": replace(TABLES, hdet=HDET),
        "noise": replace(TABLES, hdet=replace(NO_HDET, noise_fraction=0.1)),
        "local": replace(TABLES, hdet=replace(NO_HDET, gradient_sync="local")),
        "auto_lr": replace(TABLES, hdet=replace(NO_HDET, auto_lr=True)),
        "adascale": replace(plain, adascale=AdaScaleConfig()),
    }
    said = {}
    for name, config in configs.items():
        job = toy_job(folder / name, current_replicas())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="cut over 2 ranks") as error:
            run_training(TableNetwork("sharded"), job, config)
        said[name] = str(error.value)
    return said
