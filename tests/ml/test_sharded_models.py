"""The models of this house, sharded over two real processes, against their plain selves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from ml.batches import Batch
from ml.generative.prompt_ranker.loss import AnswerLossConfig, ranker_loss
from ml.generative.prompt_ranker.model import PromptRankerConfig, Vocabulary
from ml.generative.prompt_ranker.model import build as build_prompt_ranker
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig, feed_sr, toy
from ml.ranking.sequence_ranker.training import batches_for, build_model
from ml.retrieval.dual_encoder.model import DualEncoder, DualEncoderConfig
from ml.retrieval.dual_encoder.model import build as build_dual_encoder
from ml.training.fully_sharded import finish_gradients, repeated_blocks, run, shard
from tests.ml.sequence_examples import feature_spec, item_table, sequences

pytestmark = pytest.mark.usefixtures("one_thread")
Loss = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
Case = tuple[Callable[[], nn.Module], Loss, list[Any]]


def _tokens(rank: int, rows: int, width: int) -> Tensor:
    return torch.randint(3, 40, (rows, width), generator=torch.Generator().manual_seed(rank))


def _prompt_ranker(architecture: str, *, balance: float) -> Case:
    config = PromptRankerConfig(
        architecture=architecture, hidden_size=16, num_heads=2, num_experts=4, expert_size=24
    )

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean = ranker_loss(model, batch, config=AnswerLossConfig(router_balance=balance))  # pyright: ignore[reportArgumentType]
        return mean * len(batch["labels"]), torch.tensor(float(len(batch["labels"])))

    batches = [
        {
            "input_ids": _tokens(rank, rows, 9),
            "attention_mask": torch.ones(rows, 9, dtype=torch.long),
            "labels": torch.arange(rows) % 2,
        }
        for rank, rows in ((0, 6), (1, 3))
    ]
    vocabulary = Vocabulary(size=40, yes_id=1, no_id=2)
    return lambda: build_prompt_ranker(config, vocabulary=vocabulary, seed=0), loss, batches


def _dual_encoder() -> Case:
    config = DualEncoderConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        assert isinstance(model, DualEncoder)
        users, items = (model.embed(ids, torch.full((len(ids),), 5)) for ids in batch)
        logits = users @ items.T / 0.1
        losses = nn.functional.cross_entropy(logits, torch.arange(len(users)), reduction="sum")
        return losses, torch.tensor(float(len(users)))

    batches = [
        (_tokens(rank, rows, 8), _tokens(rank + 2, rows, 6)) for rank, rows in ((0, 4), (1, 2))
    ]
    return lambda: build_dual_encoder(config, vocabulary_size=40, seed=0), loss, batches


def _sequence_ranker(config: RankerConfig) -> Case:
    data, spec, items = sequences([18] * 6), feature_spec(), item_table()

    def build() -> SequenceRanker:
        return build_model(config, spec=spec, items=items, train=data).eval()

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return multi_task_loss(model(batch), batch)

    batches = batches_for(build(), data, config=replace(config.batches, events=60))
    return build, loss, list(batches.epoch(0))


CASES: dict[str, Callable[[], Case]] = {
    "mixtral": lambda: _prompt_ranker("mixtral", balance=0.0),
    "mixtral with balanced routers": lambda: _prompt_ranker("mixtral", balance=0.1),
    "olmoe": lambda: _prompt_ranker("olmoe", balance=0.0),
    "dual encoder": _dual_encoder,
    "sequence ranker": lambda: _sequence_ranker(toy()),
    "feed_sr": lambda: _sequence_ranker(feed_sr()),
}


def _plain_gradients(model: nn.Module, loss: Loss, batches: list[Any]) -> list[Tensor]:
    sums, weights = zip(*(loss(model, batch) for batch in batches), strict=True)
    (torch.stack(sums).sum() / torch.stack(weights).sum()).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def _difference(case: Case) -> dict[str, Any]:
    build, loss, batches = case
    plain = build()
    wanted = _plain_gradients(plain, loss, batches)
    model = build()
    blocks = len(repeated_blocks(model))
    sharded = shard(model)
    summed, weight = run(sharded, loss, batches[dist.get_rank()])
    summed.backward()
    weight = weight.detach().clone()
    dist.all_reduce(weight)
    finish_gradients(sharded, weight, clip_norm=1e9)
    differences, scale = [], max(float(gradient.abs().max()) for gradient in wanted)
    for parameter, gradient in zip(sharded.parameters(), wanted, strict=True):
        assert isinstance(parameter.grad, DTensor)
        differences.append(float((parameter.grad.full_tensor() - gradient).abs().max()))
    return {"blocks": blocks, "batches": len(batches), "difference": max(differences) / scale}


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outcomes = {name: _difference(case()) for name, case in CASES.items()}
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcomes))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Take the gradient of every model in two processes."""
    folder = tmp_path_factory.mktemp("models")
    spawn(_worker, args=(folder,), nprocs=2)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_sharded_model_has_the_gradient_of_the_plain_one_on_all_examples(
    outcomes: list[dict[str, Any]], name: str
) -> None:
    for outcome in outcomes:
        assert outcome[name]["blocks"] >= 2
        assert outcome[name]["batches"] == 2
        assert outcome[name]["difference"] < 1e-5
