"""The loop with what may drive it: HDET in both gradient modes, AdaScale, other scalars."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml.training.checkpoint import load_state
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.guard import GuardConfig
from ml.training.hdet.config import HdetConfig
from ml.training.job import TrainResult
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.toy_job import (
    CONFIG,
    EPOCH,
    NO_HDET,
    examples,
    network,
    run_training,
    toy_job,
    weights_of,
    without_dropout,
)

SGD = replace(CONFIG, optimizer="sgd", learning_rate=0.02, momentum=0.9)
ADASCALE = replace(SGD, adascale=AdaScaleConfig())


def _halves(folder: Path) -> dict[str, object]:
    """Return the change of a job that reads each batch of eight as two of four."""
    job = toy_job(folder, SingleReplica())

    def epoch(number: int) -> Iterator[Tensor]:
        for rows in job.epoch(number % 3):
            yield from (rows[:4], rows[4:])

    return {"epoch": epoch, "batches_per_step": 2}


def test_adascale_ends_between_the_budget_and_the_budget_over_its_scale(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), **_halves(tmp_path))
    result = run_training(network(), job, ADASCALE)
    budget = 3 * EPOCH * 2
    assert budget / 2 <= result.history[-1]["step"] < budget
    last = tmp_path / f"step-{int(result.history[-1]['step']):09d}"
    state = load_state(last)["driver"]["adascale"]
    assert budget <= state["tau"] < budget + 2
    assert state["iterations"] == result.history[-1]["step"]


def test_adascale_accumulates_what_two_replicas_share(tmp_path: Path) -> None:
    def cycled(job_folder: Path, replicas: ThreadReplicas) -> Callable[[int], list[Tensor]]:
        job = toy_job(job_folder, replicas)
        return lambda number: list(job.epoch(number % 3))

    def on_one(replicas: ThreadReplicas) -> Tensor:
        model = without_dropout()
        job = toy_job(tmp_path / "two", replicas, epoch=cycled(tmp_path / "two", replicas))
        run_training(model, job, ADASCALE)
        return weights_of(model)

    alone = without_dropout()
    job = toy_job(tmp_path / "one", SingleReplica(), **_halves(tmp_path))
    run_training(alone, job, ADASCALE)
    first, second = on_replicas(2, on_one)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, weights_of(alone), rtol=1e-4, atol=1e-6)


def test_adascale_of_single_batches_is_plain_sgd(tmp_path: Path) -> None:
    plain, scaled = network(), network()
    run_training(plain, toy_job(tmp_path / "plain", SingleReplica()), SGD)
    run_training(scaled, toy_job(tmp_path / "scaled", SingleReplica()), ADASCALE)
    torch.testing.assert_close(weights_of(plain), weights_of(scaled), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"optimizer": "adamw"}, "set optimizer='sgd'"),
        ({"hdet": HdetConfig()}, "spread_fraction=0, auto_lr=False"),
    ],
)
def test_adascale_refuses_what_it_is_not_defined_for(
    changes: dict[str, object], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        replace(ADASCALE, **changes)


def _on_two(config: TrainConfig, folder: Path, *, spoil: set[int], rank: int = 1) -> list[Tensor]:
    """Train two replicas, one of which reads infinite labels in some steps of the first epoch."""

    def run(replicas: ThreadReplicas) -> Tensor:
        job = toy_job(folder, replicas)

        def epoch(number: int) -> Iterator[Tensor]:
            for place, rows in enumerate(job.epoch(number)):
                bad = replicas.rank == rank and number == 0 and place in spoil
                yield rows * math.inf if bad else rows

        model = without_dropout()
        run_training(model, replace(job, epoch=epoch), config)
        return weights_of(model)

    return on_replicas(2, run)


@pytest.mark.parametrize(
    ("gradient_sync", "spoilt", "met"),
    # The steps 2 and 5 are those after which replicas on their own gradients meet.
    [("shared", 1, 1), ("local", 1, 3), ("local", 2, 3), ("local", 5, 6)],
)
def test_a_replica_whose_loss_is_not_finite_is_healed_by_the_other(
    tmp_path: Path, gradient_sync: str, spoilt: int, met: int
) -> None:
    hdet = HdetConfig(sync_steps=3, spread_fraction=0.3, gradient_sync=gradient_sync)
    first, second = _on_two(replace(CONFIG, hdet=hdet), tmp_path, spoil={spoilt})
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    syncs = load_state(tmp_path / f"step-{3 * EPOCH:09d}")["syncs"]
    assert [sync["step"] for sync in syncs if sync["left_out"] == [1]] == [met]


def test_local_replicas_find_an_explosion_together(tmp_path: Path) -> None:
    hdet = HdetConfig(sync_steps=3, spread_fraction=0.0, auto_lr=False, gradient_sync="local")
    config = replace(CONFIG, hdet=hdet, guard=GuardConfig(window_steps=3))
    reads = [iter(range(9)), iter(range(9))]

    def run(replicas: ThreadReplicas) -> TrainResult:
        job = toy_job(tmp_path, replicas)

        def epoch(number: int) -> Iterator[Tensor]:
            is_huge = number == 1 and next(reads[replicas.rank]) == 0
            for rows in job.epoch(number):
                yield torch.cat([rows[:, :4], rows[:, 4:] * (99.0 if is_huge else 1.0)], dim=1)

        return run_training(without_dropout(), replace(job, epoch=epoch), config)

    first, second = on_replicas(2, run)
    assert [row["loss"] for row in first.history] == [row["loss"] for row in second.history]
    state = load_state(first.checkpoint)
    assert state["guard"]["restores"] == 1
    assert state["driver"]["cooling"] == 0.5


def test_dropout_differs_between_replicas_and_rests_while_validating(tmp_path: Path) -> None:
    hdet = HdetConfig(
        sync_steps=3, auto_lr=False, diverse=("learning_rate", "dropout"), gradient_sync="shared"
    )
    seen: list[list[float]] = [[], []]

    def run(replicas: ThreadReplicas) -> TrainResult:
        model = network()
        job = toy_job(tmp_path, replicas)

        def validate(network: nn.Module) -> dict[str, float]:
            seen[replicas.rank].append(network[2].p)  # type: ignore[index]
            return job.validate(network)

        return run_training(model, replace(job, validate=validate), replace(CONFIG, hdet=hdet))

    first, _ = on_replicas(2, run)
    values = {first.history[-1][f"dropout_replica_{rank}"] for rank in (0, 1)}
    assert len(values) == 2
    assert seen[0] == seen[1] == pytest.approx([0.2] * 3)


def test_sgd_with_momentum_resumes_bit_equal(tmp_path: Path) -> None:
    whole, parts = network(), network()
    run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), SGD)
    job = toy_job(tmp_path / "parts", SingleReplica())

    def stop(metrics: dict[str, float], _: Path | None) -> None:
        if metrics["epoch"] == 1:
            raise KeyboardInterrupt

    from ml.training.loop import train

    with pytest.raises(KeyboardInterrupt):
        train(network(), job, SGD, report=stop, prepare=lambda model: model)
    run_training(parts, job, SGD)
    assert torch.equal(weights_of(whole), weights_of(parts))


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_preparing_ahead_changes_no_bit(tmp_path: Path, prefetch: int) -> None:
    plain, ahead = network(), network()
    run_training(plain, toy_job(tmp_path / "a", SingleReplica()), replace(CONFIG, prefetch=2))
    config = replace(CONFIG, prefetch=prefetch)
    result = run_training(ahead, toy_job(tmp_path / "b", SingleReplica()), config)
    assert torch.equal(weights_of(plain), weights_of(ahead))
    assert all(0 <= row["data_wait_seconds"] <= row["train_seconds"] for row in result.history)


def test_the_toy_has_no_hdet_by_default() -> None:
    assert not NO_HDET.is_on
    assert HdetConfig().is_on
    assert examples().shape == (3 * EPOCH, 8, 5)


@pytest.mark.parametrize("stop", [5, 9])
def test_local_replicas_resume_with_what_the_guard_has_seen(tmp_path: Path, stop: int) -> None:
    hdet = HdetConfig(sync_steps=4, spread_fraction=0.2, gradient_sync="local")
    config = replace(CONFIG, hdet=hdet, checkpoints=CheckpointConfig(steps=5))

    def on_one(replicas: ThreadReplicas) -> Tensor:
        folder = tmp_path / "parts"
        job = toy_job(folder, replicas)

        def epoch(number: int) -> Iterator[Tensor]:
            for place, rows in enumerate(job.epoch(number)):
                if number * EPOCH + place == stop:
                    raise KeyboardInterrupt
                yield rows

        with pytest.raises(KeyboardInterrupt):
            run_training(without_dropout(), replace(job, epoch=epoch), config)
        parts = without_dropout()
        run_training(parts, job, config)
        whole = without_dropout()
        run_training(whole, toy_job(tmp_path / "whole", replicas), config)
        assert torch.equal(weights_of(parts), weights_of(whole))
        return weights_of(whole)

    first, second = on_replicas(2, on_one)
    assert torch.equal(first, second)
    last = f"step-{3 * EPOCH:09d}"
    guards = [load_state(tmp_path / name / last)["guard"] for name in ("parts", "whole")]
    assert guards[0] == guards[1]
