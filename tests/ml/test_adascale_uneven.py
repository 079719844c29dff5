"""AdaScale where the last step of an epoch has fewer base batches than the others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_state, read_weights
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.job import TrainJob
from tests.ml.toy_job import CONFIG, run_training

VALUES = (1.0, 3.0, 2.0, 4.0, 5.0)


def test_five_batches_in_steps_of_two_end_with_a_step_of_one(tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        epochs=1,
        optimizer="sgd",
        learning_rate=0.1,
        # Constant rates, so that only the gain changes them.
        div_factor=1.0,
        final_div_factor=1.0,
        momentum=0.0,
        weight_decay=0.0,
        clip_norm=1e9,
        adascale=AdaScaleConfig(),
        checkpoints=CheckpointConfig(steps=1, keep_last=9),
    )

    def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        return (model(rows[:, None])).sum(), torch.tensor(float(len(rows)))

    job = TrainJob(
        epoch=lambda number: [*(torch.full((4,), value) for value in VALUES), None],
        steps_per_epoch=3,
        loss=loss,
        validate=lambda _: {"loss": 0.0},
        folder=tmp_path,
        batches_per_step=2,
        shared_batches=2,
        collectives=SingleReplica(),
    )
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    run_training(model, job, config)
    folders = [tmp_path / f"step-{step:09d}" for step in (1, 2, 3)]
    weights = [float(read_weights(folder)["weight"]) for folder in folders]
    # Gradients 1 and 3: variance 2, squared mean 4 - 2 / 2 = 3. Gradients 2 and 4: 2 and 8. So the
    # averages are 2 and 5.5, and the second step's gain (2 + 5.5) / (2 / 2 + 5.5).
    gain = 7.5 / 6.5
    assert weights[0] == pytest.approx(-0.1 * 2)
    assert weights[1] == pytest.approx(weights[0] - 0.1 * gain * 3)
    assert weights[2] == pytest.approx(weights[1] - 0.1 * 5)
    states = [load_state(folder)["driver"]["adascale"] for folder in folders]
    assert [state["tau"] for state in states] == pytest.approx([1, 1 + gain, 2 + gain])
    assert [state["batches_per_step"] for state in states] == [2, 2, 1]
