"""The training loop: equal to plain torch, resumable, early stopping, replicas that agree."""

import math
from dataclasses import replace
from pathlib import Path

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
from ml.training.hdet.controller import HdetConfig
from ml.training.loop import train
from ml.training.parameters import parameter_groups
from ml.training.precision import number_format, supports_bfloat16
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.sequence_examples import feature_spec, item_table, sequences
from tests.ml.toy_job import (
    CONFIG,
    EPOCH,
    examples,
    network,
    run_training,
    squared_errors,
    toy_job,
    weights_of,
)


def test_equals_plain_torch_steps(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, weight_decay=0.1, clip_norm=0.5)
    model = network().eval()
    model[2] = nn.Identity()
    other = network().eval()
    other[2] = nn.Identity()
    optimizer = torch.optim.AdamW(parameter_groups(other, weight_decay=0.1), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=EPOCH, pct_start=0.1, cycle_momentum=False,
        div_factor=config.div_factor, final_div_factor=config.final_div_factor,
    )  # fmt: skip
    for step, rows in enumerate(examples()[:EPOCH]):
        optimizer.zero_grad()
        loss, weight = squared_errors(other, rows)
        (loss / weight).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        optimizer.step()
        if step < EPOCH - 1:
            schedule.step()
    run_training(model, toy_job(tmp_path, SingleReplica()), config)
    torch.testing.assert_close(weights_of(model), weights_of(other), rtol=1e-5, atol=1e-6)


def test_two_replicas_with_half_batches_equal_one_with_whole_ones(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas | SingleReplica) -> Tensor:
        model = network()
        model[2] = nn.Identity()
        run_training(model, toy_job(tmp_path / str(replicas.size), replicas), CONFIG)
        return weights_of(model)

    halves = on_replicas(2, run)
    assert torch.equal(halves[0], halves[1])
    torch.testing.assert_close(halves[0], run(SingleReplica()), rtol=1e-4, atol=1e-5)


def test_resuming_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = network()
    expected = run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), CONFIG)

    class StoppedError(Exception):
        pass

    def stop_after_two(metrics: dict[str, float], _: Path | None) -> None:
        if metrics["epoch"] == 1:
            raise StoppedError

    job = toy_job(tmp_path / "parts", SingleReplica())
    with pytest.raises(StoppedError):
        train(network(), job, CONFIG, report=stop_after_two, prepare=lambda m: m)
    resumed = network()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    got = run_training(resumed, job, CONFIG)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert [row["loss"] for row in got.history] == [row["loss"] for row in expected.history]


def test_stops_early_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, math.nan, 2.0, 0.5])
    job = toy_job(
        tmp_path,
        SingleReplica(),
        epoch=lambda _: examples()[:EPOCH],
        validate=lambda _: {"loss": next(losses)},
    )
    model = network()
    result = run_training(model, job, replace(CONFIG, epochs=5, patience=2))
    assert [row["epoch"] for row in result.history] == [0, 1, 2, 3]
    assert result.best["epoch"] == 1
    assert result.checkpoint.name == f"step-{2 * EPOCH:09d}"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"step-{2 * EPOCH:09d}", f"step-{4 * EPOCH:09d}"]


def test_max_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    result = run_training(
        network(), toy_job(tmp_path, SingleReplica()), replace(CONFIG, max_steps=8)
    )
    assert [row["step"] for row in result.history] == [6, 8]


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SingleReplica(), epoch=lambda _: [torch.full((2, 5), math.inf)] * EPOCH)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        run_training(network(), job, CONFIG)


def test_only_replica_zero_reports_a_checkpoint(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas) -> list[tuple[dict[str, float], Path | None]]:
        seen: list[tuple[dict[str, float], Path | None]] = []
        config = replace(CONFIG, hdet=HdetConfig(sync_steps=4, noise_fraction=0.01))
        job = toy_job(tmp_path, replicas)
        train(
            network(),
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
    run_training(network(), toy_job(tmp_path, SingleReplica()), CONFIG)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-1", network(), state={"history": 1})
    with pytest.raises(TypeError):
        save_checkpoint(folder, network(), state={"history": object()})
    assert load_state(folder) == {"history": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert newest_checkpoint(tmp_path) == folder


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    result = run_training(network(), toy_job(tmp_path, SingleReplica()), CONFIG)
    names = {path.name for path in result.checkpoint.iterdir()}
    assert names == {
        "model.safetensors", "optimizer.safetensors", "optimizer.json", "state.json"
    }  # fmt: skip


def test_loading_asserts_that_every_weight_is_used(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-1", network())
    with pytest.raises(RuntimeError, match=r"Unexpected key|Missing key"):
        load_model(folder, nn.Linear(4, 6))
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_model(tmp_path / "nothing", network())


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
    result = run_training(model, job, replace(config.training, epochs=1))
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
