"""The training loop: equal to plain torch, resumable, early stopping, replicas that agree."""

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml.metrics import normalized_entropy
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import RankerConfig, recipe, toy
from ml.ranking.sequence_ranker.score import score, validation_metrics
from ml.ranking.sequence_ranker.training import (
    batches_for,
    build_model,
    load_ranker,
    ranker_job,
)
from ml.training.checkpoint import load_model, load_state, newest_checkpoint, save_checkpoint
from ml.training.collectives import SingleReplica
from ml.training.hdet_controller import HdetConfig
from ml.training.loop import TrainConfig, TrainJob, TrainResult, train
from ml.training.parameters import parameter_groups
from ml.training.precision import number_format, supports_bfloat16
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.sequence_examples import feature_spec, item_table, sequences

NO_HDET = HdetConfig(spread_fraction=0.0, auto_lr=False)
CONFIG = TrainConfig(
    epochs=3, learning_rate=0.05, patience=9, monitor="loss", precision="float32", hdet=NO_HDET
)
EPOCH = 6
_GLOBAL_GENERATOR = threading.Lock()


def _examples() -> Tensor:
    return torch.randn(EPOCH * 3, 8, 5, generator=torch.Generator().manual_seed(0))


def _loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    errors = (model(rows[:, :4])[:, 0] - rows[:, 4]) ** 2
    return errors.sum(), torch.tensor(float(len(rows)))


def _linear() -> nn.Sequential:
    # Replicas are threads here, and the global generator is theirs together.
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))


def _job(folder: Path, replicas: ThreadReplicas | SingleReplica, **changes: Any) -> TrainJob:
    examples = _examples()

    def epoch(number: int) -> list[Tensor]:
        share = 8 // replicas.size
        own = slice(replicas.rank * share, (replicas.rank + 1) * share)
        return [rows[own] for rows in examples[number * EPOCH : (number + 1) * EPOCH]]

    def validate(model: nn.Module) -> dict[str, float]:
        loss, weight = _loss(model, examples.flatten(0, 1))
        return {"loss": float(loss / weight)}

    def probe(model: nn.Module, sync: int) -> Tensor:
        rows = examples[sync]
        return (model(rows[:, :4])[:, 0] - rows[:, 4]) ** 2

    job = TrainJob(
        epoch=epoch,
        steps_per_epoch=EPOCH,
        loss=_loss,
        validate=validate,
        folder=folder,
        probe=probe,
        collectives=replicas,
    )
    return replace(job, **changes)


def _train(model: nn.Module, job: TrainJob, config: TrainConfig) -> TrainResult:
    return train(model, job, config, report=lambda *_: None, prepare=lambda m: m)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_equals_plain_torch_steps(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, weight_decay=0.1, clip_norm=0.5)
    model = _linear().eval()
    model[2] = nn.Identity()
    other = _linear().eval()
    other[2] = nn.Identity()
    optimizer = torch.optim.AdamW(parameter_groups(other, weight_decay=0.1), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=EPOCH, pct_start=0.1, cycle_momentum=False,
        div_factor=config.div_factor, final_div_factor=config.final_div_factor,
    )  # fmt: skip
    for step, rows in enumerate(_examples()[:EPOCH]):
        optimizer.zero_grad()
        loss, weight = _loss(other, rows)
        (loss / weight).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        optimizer.step()
        if step < EPOCH - 1:
            schedule.step()
    _train(model, _job(tmp_path, SingleReplica()), config)
    torch.testing.assert_close(_weights(model), _weights(other), rtol=1e-5, atol=1e-6)


def test_two_replicas_with_half_batches_equal_one_with_whole_ones(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas | SingleReplica) -> Tensor:
        model = _linear()
        model[2] = nn.Identity()
        _train(model, _job(tmp_path / str(replicas.size), replicas), CONFIG)
        return _weights(model)

    halves = on_replicas(2, run)
    assert torch.equal(halves[0], halves[1])
    torch.testing.assert_close(halves[0], run(SingleReplica()), rtol=1e-4, atol=1e-5)


def test_resuming_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = _linear()
    expected = _train(whole, _job(tmp_path / "whole", SingleReplica()), CONFIG)

    class StoppedError(Exception):
        pass

    def stop_after_two(metrics: dict[str, float], _: Path | None) -> None:
        if metrics["epoch"] == 1:
            raise StoppedError

    job = _job(tmp_path / "parts", SingleReplica())
    with pytest.raises(StoppedError):
        train(_linear(), job, CONFIG, report=stop_after_two, prepare=lambda m: m)
    resumed = _linear()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    got = _train(resumed, job, CONFIG)
    assert torch.equal(_weights(whole), _weights(resumed))
    assert [row["loss"] for row in got.history] == [row["loss"] for row in expected.history]


def test_stops_early_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, math.nan, 2.0, 0.5])
    job = _job(
        tmp_path,
        SingleReplica(),
        epoch=lambda _: _examples()[:EPOCH],
        validate=lambda _: {"loss": next(losses)},
    )
    model = _linear()
    result = _train(model, job, replace(CONFIG, epochs=5, patience=2))
    assert [row["epoch"] for row in result.history] == [0, 1, 2, 3]
    assert result.best["epoch"] == 1
    assert result.checkpoint.name == f"step-{2 * EPOCH:09d}"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"step-{2 * EPOCH:09d}", f"step-{4 * EPOCH:09d}"]


def test_max_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    result = _train(_linear(), _job(tmp_path, SingleReplica()), replace(CONFIG, max_steps=8))
    assert [row["step"] for row in result.history] == [6, 8]


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path: Path) -> None:
    job = _job(tmp_path, SingleReplica(), epoch=lambda _: [torch.full((2, 5), math.inf)])
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        _train(_linear(), job, CONFIG)


def test_only_replica_zero_reports_a_checkpoint(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas) -> list[tuple[dict[str, float], Path | None]]:
        seen: list[tuple[dict[str, float], Path | None]] = []
        config = replace(CONFIG, hdet=HdetConfig(sync_steps=4, noise_fraction=0.01))
        job = _job(tmp_path, replicas)
        train(
            _linear(),
            job,
            config,
            report=lambda metrics, path: seen.append((metrics, path)),
            prepare=lambda m: m,
        )
        return seen

    first, second = on_replicas(2, run)
    assert [path is not None for _, path in first] == [True] * 3
    assert [path for _, path in second] == [None] * 3
    for (ours, _), (theirs, _) in zip(first, second, strict=True):
        assert ours["loss"] == theirs["loss"]
        assert ours["replica_difference_before_converge"] > 0
        assert ours["replica_difference_after_converge"] == 0
        for group in ("dense", "no_decay"):
            rates = {ours[f"learning_rate_{group}_replica_{rank}"] for rank in (0, 1)}
            assert len(rates) == 2
    state = load_state(first[-1][1] or tmp_path)
    assert [sync["step"] for sync in state["syncs"]] == [4, 6, 8, 12, 16, 18]


def test_dropout_does_not_disturb_the_callers_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    _train(_linear(), _job(tmp_path, SingleReplica()), CONFIG)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-1", _linear(), state={"history": 1})
    with pytest.raises(TypeError):
        save_checkpoint(folder, _linear(), state={"history": object()})
    assert load_state(folder) == {"history": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert newest_checkpoint(tmp_path) == folder


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    result = _train(_linear(), _job(tmp_path, SingleReplica()), CONFIG)
    names = {path.name for path in result.checkpoint.iterdir()}
    assert names == {
        "model.safetensors", "optimizer.safetensors", "optimizer.json", "state.json"
    }  # fmt: skip


def test_loading_asserts_that_every_weight_is_used(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-1", _linear())
    with pytest.raises(RuntimeError, match=r"Unexpected key|Missing key"):
        load_model(folder, nn.Linear(4, 6))
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_model(tmp_path / "nothing", _linear())


def test_parameter_groups_part_embeddings_matrices_and_vectors() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    groups = {group["name"]: group for group in parameter_groups(model, weight_decay=0.1)}
    sizes = {name: [p.numel() for p in group["params"]] for name, group in groups.items()}
    assert sizes == {"embedding": [20], "dense": [12], "no_decay": [3, 3, 3]}
    assert [group["weight_decay"] for group in groups.values()] == [0.1, 0.1, 0.0]


def test_bfloat16_is_used_only_where_it_is_native() -> None:
    device = torch.device("cpu")
    expected = torch.bfloat16 if supports_bfloat16(device) else torch.float32
    assert number_format("auto", device=device) is expected
    assert number_format("float32", device=device) is torch.float32
    with pytest.raises(ValueError, match="precision is"):
        number_format("int3", device=device)


def _ranker() -> tuple[RankerInputs, RankerConfig]:
    inputs = RankerInputs(
        train=sequences([20] * 30),
        validation=sequences([20, 13, 4], split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )
    config = toy()
    model = replace(config.model, width=16, head_width=16)
    training = replace(config.training, epochs=2, hdet=HdetConfig(sync_steps=2))
    return inputs, replace(
        config, model=model, training=training, batches=replace(config.batches, events=100)
    )


def test_a_trained_ranker_is_loaded_with_equal_scores(tmp_path: Path) -> None:
    inputs, config = _ranker()
    model = build_model(config, spec=inputs.spec, items=inputs.items)
    job = ranker_job(model, inputs, config, folder=tmp_path)
    result = _train(model, job, replace(config.training, epochs=1))
    loaded = load_ranker(result.checkpoint)
    batches = batches_for(loaded, inputs.validation, config=config.batches)
    assert np.array_equal(score(model, batches), score(loaded, batches))


def test_scores_come_in_the_order_of_the_targets() -> None:
    inputs, config = _ranker()
    model = build_model(config, spec=inputs.spec, items=inputs.items)
    data = inputs.validation
    batches = batches_for(model, data, config=config.batches)
    scores = score(model, batches)
    assert scores.shape == (37, 3)
    for row in range(3):
        alone = batches_for(model, data.take(np.array([row])), config=config.batches)
        np.testing.assert_allclose(
            scores[data.offsets[row] : data.offsets[row + 1]], score(model, alone), rtol=1e-5
        )


def test_validation_metrics_do_not_depend_on_the_number_of_replicas() -> None:
    inputs, config = _ranker()
    model = build_model(config, spec=inputs.spec, items=inputs.items).eval()
    small = replace(config.batches, events=20)
    batches = batches_for(model, inputs.validation, config=small)

    def run(replicas: ThreadReplicas | SingleReplica) -> dict[str, float]:
        return validation_metrics(model, batches, spec=inputs.spec, collectives=replicas)

    one, two = run(SingleReplica()), on_replicas(2, run)
    assert two[0] == two[1] == pytest.approx(one)
    labels = inputs.validation.labels(0)
    assert one["validation_ne"] == pytest.approx(
        normalized_entropy(labels, score(model, batches)[:, 0])
    )


def test_recipes_come_by_name() -> None:
    assert recipe("toy") == toy()
    with pytest.raises(ValueError, match="no ranker recipe 'huge'"):
        recipe("huge")
