"""Streamed rows through the loop: AdaScale's further epochs, and steps that have no batch."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.batches import Batch, BatchConfig, SequenceBatches, Shard
from ml.row_chunks import StreamConfig
from ml.streaming import StreamedBatches
from ml.training.checkpoint import load_state, read_weights
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.job import TrainJob
from ml.training.steps import in_steps
from tests.ml.memory_chunks import chunks_of
from tests.ml.sequence_examples import feature_spec
from tests.ml.toy_job import CONFIG, run_training

EPOCHS = 2
TRAINING = replace(
    CONFIG,
    epochs=EPOCHS,
    learning_rate=0.01,
    weight_decay=0.0,
    checkpoints=CheckpointConfig(steps=1, keep_last=99),
)
ADASCALE = replace(TRAINING, optimizer="sgd", momentum=0.0, adascale=AdaScaleConfig())


def _batches(*lengths: list[int], seed: int = 0) -> StreamedBatches:
    config = BatchConfig(events=10, seed=seed)
    return StreamedBatches(
        chunks_of(*lengths),
        prepare=lambda data: SequenceBatches(data, spec=feature_spec(), config=config),
        config=config,
        stream=StreamConfig(shuffle_chunks=1),
        epochs=EPOCHS,
    )


class Line(nn.Module):
    """Predict nothing: every example's gradient is the same, so that no batch adds noise."""

    def __init__(self) -> None:
        """Start at 0, and count the rows that are seen."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.seen: Counter[int] = Counter()

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the weights' sum for each row, and the number of rows."""
        self.seen.update(batch.row.tolist())
        return self.weight.sum() * len(batch.row), torch.tensor(float(len(batch.row)))


def _job(folder: Path, batches: StreamedBatches, *, step_batches: int) -> TrainJob:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        assert isinstance(model, Line)
        return model.loss(batch)

    job = TrainJob(
        epoch=batches.epoch,
        steps_per_epoch=batches.num_batches(),
        loss=loss,
        validate=lambda _: {"loss": 0.0},
        folder=folder,
        collectives=SingleReplica(),
    )
    return in_steps(job, batches, step_batches=step_batches)


def test_adascale_reads_as_many_epochs_as_it_needs(tmp_path: Path) -> None:
    # Without noise a step of 4 batches gains nothing over one of a single batch.
    batches = _batches(*[[2] * 5] * 8)
    model = Line()
    config = replace(ADASCALE, patience=99)
    result = run_training(model, _job(tmp_path, batches, step_batches=4), config)
    assert len(result.history) == 4 * EPOCHS
    assert model.seen == dict.fromkeys(range(40), 4 * EPOCHS)


def _uneven() -> StreamedBatches:
    """Return batches of which the first epoch deals 4 and 4 long rows, the second 3 and 5."""
    sizes = [1, 2, 2, 3]
    for seed in range(99):
        batches = _batches(*([10] * size for size in sizes), seed=seed)
        counts = [
            [
                sum(batch is not None for batch in batches.epoch(number, shard=shard))
                for shard in (Shard(rank=0, size=2), Shard(rank=1, size=2))
            ]
            for number in range(EPOCHS)
        ]
        if counts[0] == [4, 4] and sorted(counts[1]) == [3, 5]:
            return batches
    raise AssertionError("no seed deals so")


@pytest.mark.parametrize("config", [TRAINING, ADASCALE])
def test_a_step_without_a_batch_ends_no_training_and_moves_no_weight(
    tmp_path: Path, config: Any
) -> None:
    model = Line()
    result = run_training(model, _job(tmp_path, _uneven(), step_batches=2), config)
    assert int(result.history[0]["step"]) == 5
    assert set(model.seen) == set(range(8))
    weights = [read_weights(tmp_path / f"step-{step:09d}")["weight"] for step in (3, 4, 5, 6)]
    moved = [not torch.equal(*pair) for pair in pairwise(weights)]
    assert moved == [True, False, True]
    if config.adascale is not None:
        states = [
            load_state(tmp_path / f"step-{step:09d}")["driver"]["adascale"] for step in (4, 5)
        ]
        assert states[0]["tau"] == states[1]["tau"]
        assert states[0]["iterations"] == states[1]["iterations"] == 4
