"""The loop with a model split over two real processes: the same training, half the state."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import RankerConfig, scheme
from ml.ranking.sequence_ranker.training import build_model, load_ranker, ranker_job
from ml.training.collectives import current_replicas
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.hdet.config import HdetConfig
from ml.training.loop import train
from tests.ml.sequence_examples import feature_spec, item_table, sequences

NO_HDET = HdetConfig(spread_fraction=0.0, auto_lr=False)


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


def _train(folder: Path, sharding: str) -> dict[str, object]:
    inputs, config = _inputs(), _recipe(sharding)
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    total = sum(p.numel() for p in model.parameters())
    job = ranker_job(model, inputs, config, folder=folder)
    held: list[int] = []

    def report(*_: object) -> None:
        local = [getattr(p, "_local_tensor", p) for p in model.parameters()]
        held.append(sum(p.numel() for p in local))

    result = train(model, job, config.training, report=report, prepare=lambda m: m)
    history = [
        {name: value for name, value in row.items() if not name.endswith("seconds")}
        for row in result.history
    ]
    return {"history": history, "held": held[0], "total": total}


def _worker(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    outcome = {name: _train(folder / name, name) for name in ("none", "full")}
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcome))
    assert current_replicas().size == 2
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_worker, args=(port, path), nprocs=2)
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


def test_one_process_goes_on_from_a_split_checkpoint(folder: Path, tmp_path: Path) -> None:
    inputs, config = _inputs(), _recipe("none")
    source = folder / "full" / "step-000000005"
    target = tmp_path / "run" / source.name
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=tmp_path / "run")
    result = train(model, job, config.training, report=lambda *_: None, prepare=lambda m: m)
    assert result.history[0]["step"] > 5


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
        _train(tmp_path, "full")
