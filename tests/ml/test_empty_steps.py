"""Steps in which a replica, or all of them, have no batch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_state, read_weights
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig
from ml.training.hdet.config import HdetConfig
from ml.training.job import TrainResult
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.toy_job import CONFIG, EPOCH, examples, network, run_training, toy_job

EVERY_STEP = replace(CONFIG, checkpoints=CheckpointConfig(steps=1, keep_last=3 * EPOCH))


def test_a_step_that_nobody_has_a_batch_for_moves_nothing_but_the_schedule(tmp_path: Path) -> None:
    rows = examples()
    job = toy_job(
        tmp_path,
        SingleReplica(),
        epoch=lambda number: [rows[0], rows[1], None, rows[3], rows[4], rows[5]],
    )
    run_training(network(), job, EVERY_STEP)
    before, idle, after = (
        torch.cat([weight.flatten() for weight in read_weights(folder).values()])
        for folder in (tmp_path / f"step-{step:09d}" for step in (2, 3, 4))
    )
    assert torch.equal(before, idle)
    assert not torch.equal(idle, after)
    assert load_state(tmp_path / "step-000000003")["driver"]["step"] == 3


def test_a_replica_without_a_batch_has_no_loss_that_could_steer(tmp_path: Path) -> None:
    rows = examples()[0]
    # No step moves anything, so that all losses are of the same weights and rows.
    config = replace(
        CONFIG,
        epochs=1,
        learning_rate=1e-30,
        hdet=HdetConfig(spread_fraction=0.3, sync_steps=EPOCH),
    )

    def on_one(replicas: ThreadReplicas) -> TrainResult:
        def epoch(number: int) -> Iterator[Tensor | None]:
            for step in range(EPOCH):
                yield None if replicas.rank == 3 and step == 2 else rows

        model = network()
        model[2] = nn.Identity()  # dropout's generator would be that of all threads together
        return run_training(model, toy_job(tmp_path, replicas, epoch=epoch, probe=None), config)

    sync = on_replicas(4, on_one)[0].syncs[0]
    assert sync.losses == pytest.approx([sync.losses[0]] * 4, rel=1e-6)
