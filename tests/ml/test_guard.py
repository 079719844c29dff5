"""Losses that are not finite or that explode: left out, or gone back from, by a stated rule."""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ml.training.checkpoint import load_state
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig
from ml.training.guard import GuardConfig, LossGuard, TrainingDivergedError
from tests.ml.toy_job import CONFIG, EPOCH, examples, network, run_training, toy_job, weights_of


def _with_bad_steps(bad: set[int]) -> object:
    """Return epochs whose batches of some steps hold an infinite label."""

    def epoch(number: int) -> Iterator[Tensor]:
        for place in range(EPOCH):
            rows = examples()[number * EPOCH + place].clone()
            if number * EPOCH + place in bad:
                rows[0, 4] = math.inf
            yield rows

    return epoch


def test_a_step_that_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=_with_bad_steps({2, 8}))
    model = network()
    result = run_training(model, job, CONFIG)
    assert torch.isfinite(weights_of(model)).all()
    assert [row["skipped_steps"] for row in result.history] == [1, 2, 2]
    assert all(math.isfinite(row["train_loss"]) for row in result.history)


def test_the_weights_do_not_move_in_a_step_that_is_left_out(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, max_steps=3)
    left_out, ended = network(), network()
    bad = toy_job(tmp_path / "a", SingleReplica(), epoch=_with_bad_steps({2}))
    run_training(left_out, bad, config)

    # The same cycle of three steps, read up to the second checkpoint.
    every = replace(config, checkpoints=CheckpointConfig(steps=1, keep_last=9))
    job = toy_job(tmp_path / "b", SingleReplica())
    run_training(ended, job, every)
    from ml.training.checkpoint import load_model

    load_model(tmp_path / "b" / "step-000000002", ended)
    assert torch.equal(weights_of(left_out), weights_of(ended))


def test_too_many_in_a_row_end_the_training_with_the_step_and_a_remedy(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=_with_bad_steps({3, 4, 5, 6}))
    with pytest.raises(TrainingDivergedError, match=r"4 steps in a row.*step 6.*lower the learn"):
        run_training(network(), job, CONFIG)


def test_apart_they_do_not(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=_with_bad_steps({0, 1, 2, 4, 5, 6, 8, 9, 10}))
    assert run_training(network(), job, CONFIG).history[-1]["skipped_steps"] == 9


def _exploding(times: int) -> object:
    """Return epochs whose second epoch's labels are huge the first so many times it is read."""
    reads = iter(range(100))

    def epoch(number: int) -> Iterator[Tensor]:
        is_huge = number == 1 and next(reads) < times
        for rows in examples()[number * EPOCH : (number + 1) * EPOCH]:
            yield torch.cat([rows[:, :4], rows[:, 4:] * (100.0 if is_huge else 1.0)], dim=1)

    return epoch


GUARDED = replace(CONFIG, guard=GuardConfig(window_steps=3))


def test_an_exploded_loss_goes_back_with_half_the_learning_rate(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=_exploding(1))
    result = run_training(network(), job, GUARDED)
    assert [row["epoch"] for row in result.history] == [0, 1, 2]
    state = load_state(tmp_path / f"step-{3 * EPOCH:09d}")
    assert state["guard"]["restores"] == 1
    assert state["driver"]["cooling"] == 0.5


def test_after_two_returns_it_ends_with_a_remedy(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=_exploding(9))
    with pytest.raises(TrainingDivergedError, match=r"again, after 2 returns.*lower the learning"):
        run_training(network(), job, GUARDED)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=lambda n: _exploding(1)(1 - n))  # type: ignore[operator]

    def growing(number: int) -> Iterator[Tensor]:
        for place, rows in enumerate(examples()[:EPOCH]):
            yield torch.cat([rows[:, :4], rows[:, 4:] * (1.0 if place < 3 else 100.0)], dim=1)

    with pytest.raises(TrainingDivergedError, match="no checkpoint to go back to"):
        run_training(network(), replace(job, epoch=growing), GUARDED)


def test_each_return_halves_the_rate_of_the_first_start() -> None:
    guard = LossGuard(GuardConfig(restores=3))
    assert [guard.restore(step=9, has_checkpoint=True) for _ in range(3)] == [0.5, 0.25, 0.125]


def test_a_window_is_judged_by_the_lowest_before_it() -> None:
    guard = LossGuard(GuardConfig(window_steps=2, explosion_factor=3.0))
    losses = [(8, 2), (4, 2), (3, 3), (3, 3), (6, 2), (6, 2), (7, 2), (6, 2)]
    # Means of the windows: 3, 1, 3 (not above 3 x 1), 3.25.
    found = [guard.explodes(loss=loss, weight=weight) for loss, weight in losses]
    assert found == [False] * 7 + [True]


def test_the_state_goes_through_json_values() -> None:
    guard, other = LossGuard(GuardConfig(window_steps=2)), LossGuard(GuardConfig(window_steps=2))
    assert guard.state_dict()["lowest"] is None
    for loss in (2.0, 2.0, 5.0):
        guard.explodes(loss=loss, weight=1.0)
    other.load_state_dict(guard.state_dict())
    assert guard.explodes(loss=9.0, weight=1.0) is other.explodes(loss=9.0, weight=1.0) is True


@pytest.mark.parametrize(
    "wrong",
    [{"skipped_steps": -1}, {"window_steps": 0}, {"explosion_factor": 1.0}, {"cooling_factor": 1}],
)
def test_refuses_values_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        GuardConfig(**wrong)  # type: ignore[arg-type]


def test_a_healthy_training_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run_training(network(), toy_job(tmp_path, SingleReplica()), CONFIG)
    assert not caplog.records
