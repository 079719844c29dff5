"""The loop with a model split over two real processes: the same training, half the state."""

import json
import shutil
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import RankerConfig, scheme
from ml.ranking.sequence_ranker.training import (
    build_model,
    load_ranker,
    memory_batches,
    ranker_job,
)
from ml.training.checkpoint import MODEL_FILE, OPTIMIZER_TENSORS
from ml.training.collectives import current_replicas
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.hdet.config import HdetConfig
from ml.training.loop import train
from ml.training.steps import in_steps
from tests.ml.sequence_examples import feature_spec, item_table, sequences
from tests.ml.toy_job import NO_HDET, KilledError, killed_at


def _inputs() -> RankerInputs:
    return RankerInputs(
        train=sequences([18] * 30),
        validation=sequences([11] * 9, split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )


def _recipe(sharding: str) -> RankerConfig:
    recipe = scheme("attn_mvp")
    # Fifteen batches: in the last step of an epoch one worker has none.
    return replace(
        recipe,
        model=replace(recipe.model, width=16, head_width=16, dropout_fraction=0.0),
        batches=replace(recipe.batches, events=36, item_dropout_fraction=0.0),
        training=replace(
            recipe.training,
            epochs=2,
            hdet=NO_HDET,
            sharding=sharding,
            checkpoints=CheckpointConfig(steps=5, keep_last=9),
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Say how a training is started.

    Attributes:
        sharding: As in TrainConfig.
        kill: Step whose batch ends it; never by default.
        goes_on: Whether all its weights are lost, so that only a checkpoint can bring them back.
        step_batches: Batches of a step over all workers; one a worker by default.
    """

    sharding: str
    kill: int = -1
    goes_on: bool = False
    step_batches: int | None = None


def _train(folder: Path, run: _Run) -> dict[str, Any]:
    inputs, config = _inputs(), _recipe(run.sharding)
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    if run.goes_on:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    total = sum(p.numel() for p in model.parameters())
    job = ranker_job(model, inputs, config, folder=folder)
    if run.step_batches:
        batches = memory_batches(model, inputs.train, config)
        job = in_steps(job, batches, step_batches=run.step_batches)
    held: list[int] = []

    def report(*_: object) -> None:
        local = [getattr(p, "_local_tensor", p) for p in model.parameters()]
        held.append(sum(p.numel() for p in local))

    result = train(
        model, killed_at(job, run.kill), config.training, report=report, prepare=lambda m: m
    )
    history = [
        {name: value for name, value in row.items() if not name.endswith("seconds")}
        for row in result.history
    ]
    return {"history": history, "held": held[0], "total": total}


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # A worker that waits for one that has failed shall not do so for half an hour.
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    outcome: dict[str, Any] = {
        name: _train(folder / name, _Run(sharding=name)) for name in ("none", "full")
    }
    with pytest.raises(KilledError):
        _train(folder / "parts", _Run(sharding="full", kill=12))
    if rank == 0:
        shutil.copytree(folder / "parts", folder / "broken")
        (folder / "broken" / "step-000000010" / MODEL_FILE).unlink()
    dist.barrier()
    goes_on = _Run(sharding="full", goes_on=True)
    outcome["parts"] = _train(folder / "parts", goes_on)
    with pytest.raises(OSError) as refused:
        _train(folder / "broken", goes_on)
    outcome["broken"] = str(refused.value)
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcome))
    assert current_replicas().size == 2
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split")
    spawn(_worker, args=(path,), nprocs=2)
    return path


def test_a_split_model_trains_as_a_whole_one(folder: Path) -> None:
    for rank in (0, 1):
        outcome = json.loads((folder / f"rank-{rank}.json").read_text())
        whole, split = outcome["none"]["history"], outcome["full"]["history"]
        assert len(whole) == 2
        for one, other in zip(whole, split, strict=True):
            for name in ("step", "train_loss", "validation_ne"):
                assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_each_worker_holds_about_half(folder: Path) -> None:
    held = [json.loads((folder / f"rank-{rank}.json").read_text())["full"] for rank in (0, 1)]
    assert sum(part["held"] for part in held) == held[0]["total"]
    assert all(0.4 < part["held"] / part["total"] < 0.6 for part in held)


def test_its_checkpoint_is_that_of_a_whole_model(folder: Path) -> None:
    steps = sorted(path.name for path in (folder / "full").iterdir())
    assert steps == sorted(path.name for path in (folder / "none").iterdir())
    one, other = (load_ranker(folder / name / steps[-1]) for name in ("none", "full"))
    for (name, whole), (_, split) in zip(
        one.state_dict().items(), other.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(whole, split, rtol=1e-3, atol=1e-5, msg=name)


def test_a_split_training_that_was_killed_goes_on_without_the_change_of_a_bit(
    folder: Path,
) -> None:
    for rank in (0, 1):
        outcome = json.loads((folder / f"rank-{rank}.json").read_text())
        assert outcome["parts"]["history"] == outcome["full"]["history"]
    last = sorted(path.name for path in (folder / "full").iterdir())[-1]
    for file in (MODEL_FILE, OPTIMIZER_TENSORS):
        whole, parts = (load_file(folder / name / last / file) for name in ("full", "parts"))
        assert whole.keys() == parts.keys()
        for name, tensor in whole.items():
            assert torch.equal(tensor, parts[name]), name


def test_a_checkpoint_that_the_first_worker_cannot_read_ends_all_of_them(folder: Path) -> None:
    outcomes = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert "no weights at" in outcomes[0]["broken"]
    assert "replica 0 could not read or write its part" in outcomes[1]["broken"]


def test_one_process_goes_on_from_a_split_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Both workers' batches are its own; sums in another order differ in the last bits."""
    source = folder / "full" / "step-000000010"
    shutil.copytree(source, tmp_path / "run" / source.name)
    parts = _train(tmp_path / "run", _Run(sharding="none", goes_on=True, step_batches=2))
    whole = json.loads((folder / "rank-0.json").read_text())["none"]
    assert len(parts["history"]) == len(whole["history"]) == 2
    for one, other in zip(parts["history"], whole["history"], strict=True):
        for name in ("step", "train_loss", "validation_ne"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"hdet": HdetConfig()}, "spread_fraction=0, auto_lr=False"),
        ({"hdet": NO_HDET, "optimizer": "sgd", "adascale": AdaScaleConfig()}, "adascale=None"),
    ],
)
def test_what_needs_whole_replicas_is_refused(changes: dict[str, object], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        TrainConfig(sharding="full", **changes)  # type: ignore[arg-type]


def test_one_worker_cannot_split_anything(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RANKLAKE_WORKERS"):
        _train(tmp_path, _Run(sharding="full"))
