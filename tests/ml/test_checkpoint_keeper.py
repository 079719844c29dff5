"""Checkpoints that stay: the newest, the best, and the older one where the disk is full."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ml.training.checkpoint import load_model, save_checkpoint
from ml.training.checkpoint_keeper import CheckpointKeeper
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig
from tests.infra.small_disk import filled, mounted
from tests.ml.toy_job import CONFIG, EPOCH, network, run_training, toy_job, weights_of


def _names(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def _write(keeper: CheckpointKeeper, step: int, best: list[int]) -> Path | None:
    return keeper.write(
        step, save=lambda folder: save_checkpoint(folder, nn.Linear(2, 1)), best_steps=best
    )


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, config=CheckpointConfig(keep_last=2, keep_best=2))
    for step, best in [(10, [10]), (20, [20, 10]), (25, [20, 10]), (30, [30, 10, 20])]:
        _write(keeper, step, best)
    # 25 and 30 are the newest, 30 and 10 the best.
    assert _names(tmp_path) == [10, 25, 30]
    assert keeper.best([30, 10, 20]).name == "step-000000030"


def test_the_best_of_a_training_is_what_it_returns(tmp_path: Path) -> None:
    losses = iter([2.0, 1.0, 3.0])
    job = toy_job(tmp_path, SingleReplica(), validate=lambda _: {"loss": next(losses)})
    config = replace(CONFIG, checkpoints=CheckpointConfig(steps=2, keep_last=1, keep_best=1))
    result = run_training(network(), job, config)
    assert result.best["epoch"] == 1
    assert result.checkpoint == tmp_path / f"step-{2 * EPOCH:09d}"
    assert _names(tmp_path) == [2 * EPOCH, 3 * EPOCH]


def test_a_part_that_an_interrupted_save_left_is_removed(tmp_path: Path) -> None:
    part = tmp_path / ".step-000000004-x1"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    keeper = CheckpointKeeper(tmp_path, config=CheckpointConfig())
    assert not part.exists()
    assert keeper.newest() is None


def test_a_full_disk_costs_the_newest_checkpoint_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "disk", mebibytes=4) as disk:
        keeper = CheckpointKeeper(disk, config=CheckpointConfig())
        first = _write(keeper, 1, [])
        with filled(disk, room_bytes=0):
            assert _write(keeper, 2, []) is None
        assert "free some space" in caplog.text
        assert keeper.failures == 1
        assert keeper.newest() == first
        assert [path.name for path in disk.iterdir()] == ["step-000000001"]
        assert _write(keeper, 3, []) == disk / "step-000000003"


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_a_training_goes_on_while_the_disk_is_full_and_goes_on_from_the_older(
    tmp_path: Path, name: str
) -> None:
    """The disk has room for nothing, or for the weights and not for the moments."""
    room = {"model": 0, "optimizer": 12_000}[name]
    with mounted(tmp_path / "disk", mebibytes=4) as disk:
        folder = disk / "run"
        job = toy_job(folder, SingleReplica())
        validate, full = job.validate, None

        def filling(model: nn.Module) -> dict[str, float]:
            nonlocal full
            metrics = validate(model)
            if full is None and _names(folder):
                full = filled(disk, room_bytes=room)
                full.__enter__()
            return metrics

        model = network()
        result = run_training(model, replace(job, validate=filling), CONFIG)
        assert [row["epoch"] for row in result.history] == [0, 1, 2]
        assert _names(folder) == [EPOCH]
        assert result.checkpoint == folder / f"step-{EPOCH:09d}"
        assert full is not None
        full.__exit__(None, None, None)
        again, whole = network(), network()
        run_training(again, toy_job(folder, SingleReplica()), CONFIG)
        run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), CONFIG)
        assert torch.equal(weights_of(again), weights_of(whole))
        load_model(folder / f"step-{3 * EPOCH:09d}", model)
        assert torch.equal(weights_of(model), weights_of(whole))


def test_a_training_that_could_save_no_epoch_ends_with_a_remedy(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", mebibytes=4) as disk,
        filled(disk, room_bytes=0),
        pytest.raises(OSError, match="no epoch's checkpoint fitted on the disk"),
    ):
        run_training(network(), toy_job(disk, SingleReplica()), CONFIG)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"keep_last": 0}, {"keep_best": 0}])
def test_refuses_values_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        CheckpointConfig(**wrong)
