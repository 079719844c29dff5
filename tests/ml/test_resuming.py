"""A training that is gone on with is the one that was never interrupted, wherever it stopped."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_state, newest_checkpoint
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.hdet.controller import HdetConfig
from ml.training.job import Launch, TrainJob
from ml.training.loop import train
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.toy_job import (
    CONFIG,
    EPOCH,
    KilledError,
    killed_at,
    network,
    run_training,
    toy_job,
    weights_of,
    without_dropout,
)

EVERY_FOUR = replace(CONFIG, checkpoints=CheckpointConfig(steps=4))
SPREAD = replace(EVERY_FOUR, hdet=HdetConfig(sync_steps=3, spread_fraction=0.3))


def _train_in_parts(
    job: TrainJob,
    config: TrainConfig,
    *,
    kills: list[int],
    build: Callable[[], nn.Module] = network,
) -> nn.Module:
    for step in kills:
        with pytest.raises(KilledError):
            run_training(build(), killed_at(job, step), config)
    model = build()
    if newest_checkpoint(job.folder):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    run_training(model, job, config)
    return model


@pytest.mark.parametrize("step", range(1, 3 * EPOCH))
def test_a_kill_at_any_step_changes_no_bit(tmp_path: Path, step: int) -> None:
    whole = network()
    run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), EVERY_FOUR)
    parts = _train_in_parts(toy_job(tmp_path / "parts", SingleReplica()), EVERY_FOUR, kills=[step])
    assert torch.equal(weights_of(whole), weights_of(parts))


def _without_times(folder: Path) -> str:
    state = load_state(folder)
    for row in (*state["history"], state["progress"]):
        for name in [name for name in row if name.endswith("seconds")]:
            del row[name]
    return json.dumps(state, sort_keys=True)


@pytest.mark.parametrize("kills", [[5], [2, 7, 11, 16], [13, 14, 15]])
def test_replicas_that_differ_go_on_as_if_uninterrupted(tmp_path: Path, kills: list[int]) -> None:
    def run(name: str, kills: list[int]) -> Callable[[ThreadReplicas], Tensor]:
        def on_one(replicas: ThreadReplicas) -> Tensor:
            job = toy_job(tmp_path / name, replicas)
            model = _train_in_parts(job, SPREAD, kills=kills, build=without_dropout)
            return weights_of(model)

        return on_one

    whole, parts = on_replicas(2, run("whole", [])), on_replicas(2, run("parts", kills))
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])
    last = f"step-{3 * EPOCH:09d}"
    assert _without_times(tmp_path / "whole" / last) == _without_times(tmp_path / "parts" / last)


def test_nothing_is_skipped_or_repeated_over_the_trajectory_that_was_kept(tmp_path: Path) -> None:
    steps: dict[int, list[float]] = {}
    seen: list[float] = []

    def noting(job: TrainJob) -> TrainJob:
        def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
            seen.extend(rows[:, 4].tolist())
            return job.loss(model, rows)

        def epoch(number: int) -> Iterator[Tensor]:
            for place, batch in enumerate(job.epoch(number)):
                steps[number * EPOCH + place] = batch[:, 4].tolist()
                yield batch

        return replace(job, loss=loss, epoch=epoch)

    job = toy_job(tmp_path, SingleReplica())
    _train_in_parts(noting(job), EVERY_FOUR, kills=[3, 9, 10, 17])
    kept = Counter(event for events in steps.values() for event in events)
    assert len(kept) == 3 * EPOCH * 8
    assert set(kept.values()) == {1}
    assert len(seen) > len(kept), "nothing was replayed, so nothing was tested"


def test_a_checkpoint_within_an_epoch_is_of_replicas_that_have_just_met(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas) -> None:
        job = killed_at(toy_job(tmp_path, replicas), 5)
        with pytest.raises(KilledError):
            run_training(network(), job, SPREAD)

    on_replicas(2, run)
    state = load_state(tmp_path / "step-000000004")
    assert state["syncs"][-1]["step"] == 4
    assert state["progress"]["steps"] == 4
    assert len(state["random"]) == 2


def test_another_number_of_replicas_takes_the_same_steps_on(tmp_path: Path) -> None:
    config = replace(EVERY_FOUR, epochs=2)

    def first(replicas: ThreadReplicas) -> None:
        with pytest.raises(KilledError):
            run_training(
                without_dropout(), killed_at(toy_job(tmp_path / "parts", replicas), 8), config
            )

    on_replicas(2, first)
    parts, whole = without_dropout(), without_dropout()
    run_training(parts, toy_job(tmp_path / "parts", SingleReplica()), config)
    run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), config)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-4, atol=1e-5)


def test_batches_are_accumulated_into_the_step_of_their_union(tmp_path: Path) -> None:
    def run(name: str, **changes: object) -> Tensor:
        model = without_dropout()
        run_training(model, toy_job(tmp_path / name, SingleReplica(), **changes), CONFIG)
        return weights_of(model)

    job = toy_job(tmp_path, SingleReplica())

    def halves(number: int) -> Iterator[Tensor | None]:
        for rows in job.epoch(number):
            yield from (rows[:5], None, rows[5:])

    whole, parts = run("whole"), run("parts", epoch=halves, batches_per_step=3)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)


def test_a_training_that_goes_on_knows_the_epochs_before_it(tmp_path: Path) -> None:
    job, reported = toy_job(tmp_path, SingleReplica()), []
    with pytest.raises(KilledError):
        run_training(network(), killed_at(job, 2 * EPOCH), CONFIG)
    result = train(
        network(),
        job,
        CONFIG,
        report=lambda metrics, _: reported.append(metrics["epoch"]),
        prepare=lambda model: model,
    )
    assert reported == [2]
    assert [row["epoch"] for row in result.history] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps_per_epoch": EPOCH - 1}, f"{EPOCH} steps per epoch, and this training has 5"),
        ({"shared_batches": 2}, "1 batches per step, and this training has 2"),
    ],
)
def test_steps_of_another_size_are_not_gone_on_with(
    tmp_path: Path, change: dict[str, int], told: str
) -> None:
    job = toy_job(tmp_path, SingleReplica(), shared_batches=1)
    with pytest.raises(KilledError):
        run_training(network(), killed_at(job, 6), EVERY_FOUR)
    with pytest.raises(ValueError, match=f"step-000000006 is of {told}"):
        run_training(network(), replace(job, **change), EVERY_FOUR)


def test_a_runner_may_ask_for_checkpoints_that_the_recipe_leaves_open() -> None:
    asked = Launch(checkpoints_per_epoch=4)
    assert asked.training(CONFIG, steps_per_epoch=10).checkpoints.steps == 2
    assert asked.training(CONFIG, steps_per_epoch=3).checkpoints.steps == 1
    assert asked.training(EVERY_FOUR, steps_per_epoch=10) == EVERY_FOUR
    assert Launch().training(CONFIG, steps_per_epoch=10) == CONFIG
