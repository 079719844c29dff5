"""Sharded training: two real processes over gloo against one process without sharding."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn
from torch.optim import AdamW

from ml.layers.scalars import AttentionTemperature
from ml.training.checkpoint import (
    MODEL_FILE,
    OPTIMIZER_FILE,
    OPTIMIZER_TENSORS,
    load_model,
    load_optimizer,
    read_optimizer,
    read_weights,
    save_checkpoint,
)
from ml.training.collectives import ProcessGroupReplicas
from ml.training.fully_sharded import (
    Sharded,
    finish_gradients,
    repeated_blocks,
    run,
    shard,
)
from ml.training.sharded_state import full_state, load_full_state
from tests.ml.sharded_examples import (
    CLIP_NORM,
    TOKENS,
    WIDTH,
    Block,
    Decoder,
    examples,
    optimizer_of,
    plain_steps,
    summed_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = 1e-5


def _sharded_steps(model: Sharded, optimizer: AdamW, steps: Sequence[int]) -> list[float]:
    norms = []
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        loss, weight = run(model, summed_loss, examples(step)[dist.get_rank()])
        loss.backward()
        dist.all_reduce(weight)
        norms.append(float(finish_gradients(model, weight, clip_norm=CLIP_NORM)))
        optimizer.step()
    return norms


def _save(folder: Path, model: Sharded, optimizer: AdamW) -> None:
    state = full_state(model, optimizer)
    assert (state is None) == (dist.get_rank() != 0)
    if state is not None:
        save_checkpoint(folder, state[0], optimizer=state[1])


def _load(folder: Path, model: Sharded, optimizer: AdamW) -> None:
    first = dist.get_rank() == 0
    state = (read_weights(folder), read_optimizer(folder)) if first else None
    load_full_state(model, optimizer, state)


def _numbers(tensors: Sequence[Tensor]) -> int:
    return sum(cast("DTensor", tensor).to_local().numel() for tensor in tensors)


def _refusals(model: Sharded, optimizer: AdamW, folder: Path) -> dict[str, str]:
    weights, moments = read_weights(folder), read_optimizer(folder)
    fewer = {name: w for name, w in weights.items() if name != "blocks.0.inner.bias"}
    states = {index: dict(values) for index, values in moments["state"].items()}
    states[1]["exp_avg"] = torch.zeros(3, 5)
    wrong = {"weights": (fewer, moments), "moments": (weights, {**moments, "state": states})}
    said = {}
    for name, state in wrong.items():
        with pytest.raises(RuntimeError) as refused:
            load_full_state(model, optimizer, state if dist.get_rank() == 0 else None)
        said[name] = str(refused.value)
    return said


def _restored_by_itself() -> float:
    """Return what a module that has no parameter brings back from its own entry of a state."""
    model = Decoder(seed=0)
    model.temperature = AttentionTemperature()
    sharded = shard(model)
    optimizer = optimizer_of(sharded)
    model.temperature.value = 2.5
    state = full_state(sharded, optimizer)
    model.temperature.value = 1.0
    load_full_state(sharded, optimizer, state)
    return model.temperature.value


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = shard(Decoder(seed=rank))
    optimizer = optimizer_of(model)
    norms = _sharded_steps(model, optimizer, [0, 1])
    _save(folder / "step-2", model, optimizer)
    with torch.inference_mode():
        validation = float(run(model, summed_loss, (torch.arange(12).view(2, 6), True))[0])
    weights = _numbers(list(model.parameters()))
    norms += _sharded_steps(model, optimizer, [2, 3])
    _save(folder / "step-4", model, optimizer)
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    outcome: dict[str, Any] = {
        "norms": norms,
        "validation": validation,
        "weights": [weights, _numbers(list(model.parameters()))],
        "moments": _numbers(moments),
    }
    continued = shard(Decoder(seed=7 + rank))
    optimizer = optimizer_of(continued)
    _load(folder / "plain-2", continued, optimizer)
    _sharded_steps(continued, optimizer, [2, 3])
    _save(folder / "from-plain", continued, optimizer)
    outcome["refusals"] = _refusals(continued, optimizer, folder / "plain-2")
    turned = torch.arange(6.0).view(2, 3).T * (rank + 1)
    ProcessGroupReplicas().broadcast(turned)
    outcome["broadcast"] = turned.tolist()
    outcome["temperature"] = _restored_by_itself()
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcome))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with two processes, from scratch and from a checkpoint of one process."""
    folder = tmp_path_factory.mktemp("sharded")
    model = Decoder(seed=0)
    optimizer = optimizer_of(model)
    norms = plain_steps(model, optimizer, [0, 1])
    save_checkpoint(folder / "plain-2", model, optimizer=optimizer)
    with torch.inference_mode():
        validation = float(summed_loss(model, (torch.arange(12).view(2, 6), True))[0])
    norms += plain_steps(model, optimizer, [2, 3])
    save_checkpoint(folder / "plain-4", model, optimizer=optimizer)
    (folder / "plain.json").write_text(json.dumps({"norms": norms, "validation": validation}))
    spawn(_worker, args=(folder,), nprocs=2)
    return folder


@pytest.fixture
def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def _assert_equal(one: Path, other: Path) -> None:
    for file in (MODEL_FILE, OPTIMIZER_TENSORS):
        ours, theirs = load_file(one / file), load_file(other / file)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.dtype == theirs[name].dtype
            torch.testing.assert_close(tensor, theirs[name], atol=TOLERANCE, rtol=0)
    assert (one / OPTIMIZER_FILE).read_text() == (other / OPTIMIZER_FILE).read_text()


def test_two_sharded_workers_train_as_one_process_on_all_examples(
    folder: Path, outcomes: list[dict[str, Any]]
) -> None:
    _assert_equal(folder / "step-4", folder / "plain-4")
    plain = json.loads((folder / "plain.json").read_text())
    assert min(plain["norms"]) < CLIP_NORM < max(plain["norms"])
    for outcome in outcomes:
        assert outcome["norms"] == pytest.approx(plain["norms"], rel=1e-5)
        assert outcome["validation"] == pytest.approx(plain["validation"], rel=1e-5)


def test_training_moves_every_weight_by_more_than_the_tolerance(folder: Path) -> None:
    start, end = Decoder(seed=0).state_dict(), read_weights(folder / "plain-4")
    moved = {name: float((end[name] - start[name]).abs().max()) for name in start}
    assert moved.pop("shift") == 0
    assert moved.pop("unused.bias") == 0
    assert min(moved.values()) > 100 * TOLERANCE


def test_each_worker_keeps_half_of_the_weights_after_a_validation_and_a_step(
    outcomes: list[dict[str, Any]],
) -> None:
    total = TOKENS * WIDTH + 5 * (WIDTH * WIDTH + WIDTH) + 4 * WIDTH
    for outcome in outcomes:
        assert outcome["weights"] == [total // 2, total // 2]
        assert outcome["moments"] == total // 2


def test_a_checkpoint_of_two_workers_continues_in_one_process(folder: Path) -> None:
    model = Decoder(seed=3)
    optimizer = optimizer_of(model)
    load_model(folder / "step-2", model)
    load_optimizer(folder / "step-2", optimizer)
    plain_steps(model, optimizer, [2, 3])
    save_checkpoint(folder / "from-sharded", model, optimizer=optimizer)
    _assert_equal(folder / "from-sharded", folder / "plain-4")


@pytest.fixture
def only_worker(tmp_path: Path) -> Iterator[None]:
    """Be the only member of a process group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("only_worker")
def test_a_checkpoint_of_two_workers_continues_in_the_only_worker_left(
    folder: Path, tmp_path: Path
) -> None:
    model = shard(Decoder(seed=3))
    optimizer = optimizer_of(model)
    _load(folder / "step-2", model, optimizer)
    for step in (2, 3):
        optimizer.zero_grad(set_to_none=True)
        pairs = [run(model, summed_loss, example) for example in examples(step)]
        for loss, _ in pairs:
            loss.backward()
        weight = torch.stack([weight for _, weight in pairs]).sum()
        finish_gradients(model, weight, clip_norm=CLIP_NORM)
        optimizer.step()
    _save(tmp_path / "alone", model, optimizer)
    _assert_equal(tmp_path / "alone", folder / "plain-4")


@pytest.mark.usefixtures("only_worker")
def test_a_block_that_is_never_run_gets_zeros_and_a_frozen_weight_nothing() -> None:
    model = Decoder(seed=0)
    model.embedding.weight.requires_grad_(False)
    idle = Block()
    model.spare = nn.ModuleList([idle])
    sharded = shard(model)
    loss, weight = run(sharded, summed_loss, examples(0)[0])
    loss.backward()
    finish_gradients(sharded, weight, clip_norm=CLIP_NORM)
    for parameter in idle.parameters():
        assert parameter.grad is not None
        assert not cast("DTensor", parameter.grad).full_tensor().any()
    assert model.embedding.weight.grad is None


def test_a_checkpoint_of_one_process_continues_in_two_workers(folder: Path) -> None:
    _assert_equal(folder / "from-plain", folder / "plain-4")


def test_a_state_of_another_model_is_refused_on_all_workers(
    outcomes: list[dict[str, Any]],
) -> None:
    for outcome in outcomes:
        assert "blocks.0.inner.bias" in outcome["refusals"]["weights"]
        assert "exp_avg of parameter 1 is [3, 5], not" in outcome["refusals"]["moments"]


def test_what_a_module_adds_to_its_state_comes_back_on_all_workers(
    outcomes: list[dict[str, Any]],
) -> None:
    assert [outcome["temperature"] for outcome in outcomes] == [2.5, 2.5]


def test_a_tensor_that_is_not_contiguous_takes_the_first_workers_values(
    outcomes: list[dict[str, Any]],
) -> None:
    for outcome in outcomes:
        assert outcome["broadcast"] == [[0, 3], [1, 4], [2, 5]]


def test_blocks_are_the_outermost_entries_of_module_lists_that_have_parts() -> None:
    model = nn.ModuleDict(
        {
            "tower": Decoder(seed=0),
            "experts": nn.ModuleList([nn.ModuleList([Block()]), nn.Linear(2, 2)]),
        }
    )
    found = repeated_blocks(model)
    assert found == [
        *cast("Decoder", model["tower"]).blocks,
        cast("nn.ModuleList", model["experts"])[0],
    ]
    assert repeated_blocks(model, kinds=[nn.Embedding]) == [
        cast("Decoder", model["tower"]).embedding
    ]
    assert repeated_blocks(model, kinds=[]) == []


@pytest.mark.usefixtures("only_worker")
def test_a_model_without_blocks_is_sharded_too() -> None:
    sharded = shard(nn.Linear(4, 4), blocks=[])
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "name the types"),
        (Decoder(seed=0), "process group"),
    ],
)
def test_what_cannot_be_sharded_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shard(model)


def test_a_weight_of_two_blocks_is_refused_by_its_name() -> None:
    model = Decoder(seed=0)
    first, second = (cast("Block", block) for block in model.blocks)
    second.inner.weight = first.inner.weight
    with pytest.raises(ValueError, match=r"inner\.weight of a Block is shared"):
        shard(model)


def test_a_scalar_parameter_is_refused_by_its_name() -> None:
    model = Decoder(seed=0)
    model.temperature = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match="parameter temperature one dimension"):
        shard(model)
