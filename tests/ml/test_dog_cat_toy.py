"""The dog and cat toy: a taste per category that only past actions reveal.

Four categories; each user likes each one with probability 0.9 or 0.1, by a coin. The exact Bayes
predictor from the history has NE 0.4956 on positions 16-31, a model without actions 1.0.
Source: attn-lfa-mvp 3.6, in short form.
"""

from typing import Any

import numpy as np
import pytest
import torch

from ml.batches import CONTEXT_COLUMNS, Batch
from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.metrics import normalized_entropy
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker

STEPS, CATEGORIES, EVENTS, ROWS = 220, 4, 32, 64


def _users(rng: np.random.Generator, rows: int) -> Batch:
    likes = np.where(rng.random((rows, CATEGORIES)) < 0.5, 0.9, 0.1)
    item = rng.integers(0, CATEGORIES, (rows, EVENTS))
    action = rng.random((rows, EVENTS)) < np.take_along_axis(likes, item, axis=1)
    return Batch(
        item=torch.from_numpy(item + 1).int(),
        request=torch.arange(EVENTS, dtype=torch.int32).repeat(rows, 1),
        session=torch.arange(1, EVENTS + 1, dtype=torch.int32).repeat(rows, 1),
        time=torch.arange(EVENTS).repeat(rows, 1) * 3600,
        context=torch.zeros(rows, EVENTS, len(CONTEXT_COLUMNS), dtype=torch.int32),
        actions=torch.from_numpy(action).float()[..., None],
        dwell=torch.zeros(rows, EVENTS, dtype=torch.int32),
        target=torch.ones(rows, EVENTS, dtype=torch.bool),
        weight=torch.ones(rows, EVENTS),
        numbers=torch.zeros(rows, EVENTS, 0),
        crosses=torch.zeros(rows, EVENTS, 0, dtype=torch.int32),
        row=torch.arange(rows),
    )


def _train(**config: Any) -> SequenceRanker:
    empty = np.zeros((CATEGORIES + 1, 0), np.int32)
    items = ItemTable(
        tags=empty,
        codes=empty,
        author=np.zeros(CATEGORIES + 1, np.int32),
        embedding=empty.astype(np.float32),
        tag_names=np.array([], str),
    )
    spec = FeatureSpec(num_items=CATEGORIES, actions=("like",), primary_action="like")
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 32, "heads": 2, "layers": 2, "head_width": 32} | config
    model = SequenceRanker(SequenceRankerConfig(**settings), spec=spec, items=items)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = _users(rng, ROWS)
        loss, weight = multi_task_loss(model(batch), batch)
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _late_entropy(model: SequenceRanker) -> float:
    batch = _users(np.random.default_rng(99), 1000)
    with torch.no_grad():
        probabilities = torch.sigmoid(model(batch))[:, 16:, 0].numpy().ravel()
    return normalized_entropy(batch.actions[:, 16:, 0].numpy().ravel(), probabilities)


@pytest.mark.parametrize("scheme", ["attn_mvp", "attn_mvp_without_lfa"])
def test_models_with_actions_reach_the_bayes_limit(scheme: str) -> None:
    assert _late_entropy(_train(scheme=scheme)) <= 0.53


def test_a_model_without_actions_learns_nothing() -> None:
    assert _late_entropy(_train(scheme="no_action")) >= 0.98
