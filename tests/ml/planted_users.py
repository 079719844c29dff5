"""Toy users whose tastes only past outcomes reveal, a small ranker for them, and its score.

Dog/cat: each user likes each of four categories with probability 0.9 or 0.1, by a coin.
Daypart: the coin is thrown for each category and half of the day; events are 0.35 days apart on
average, so that one has to know when a past event was.

Source: attn-lfa-mvp 3.6 and siren-rope 1.8 (h).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ml.batches import CONTEXT_COLUMNS, Batch
from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.layers.time_features import set_time_origin
from ml.metrics import normalized_entropy
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker

CATEGORIES, EVENTS = 4, 32
FIRST_TIME, LATEST_START, MEAN_GAP = 1_700_006_400, 180 * 86_400, 0.35 * 86_400
Users = Callable[[np.random.Generator, int], Batch]


def dog_cat_users(rng: np.random.Generator, rows: int) -> Batch:
    """Return users with a taste per category, an event an hour."""
    likes = np.where(rng.random((rows, CATEGORIES)) < 0.5, 0.9, 0.1)
    item = rng.integers(0, CATEGORIES, (rows, EVENTS))
    action = rng.random((rows, EVENTS)) < np.take_along_axis(likes, item, axis=1)
    time = FIRST_TIME + 3600 * np.arange(EVENTS)
    return _batch(item, action, time=np.tile(time, (rows, 1)))


def daypart_users(rng: np.random.Generator, rows: int) -> Batch:
    """Return users with a taste per category and half of the day."""
    likes = np.where(rng.random((rows, 2 * CATEGORIES)) < 0.5, 0.9, 0.1)
    item = rng.integers(0, CATEGORIES, (rows, EVENTS))
    start = rng.integers(0, LATEST_START, (rows, 1))
    gaps = rng.exponential(MEAN_GAP, (rows, EVENTS)).astype(np.int64)
    time = FIRST_TIME + start + gaps.cumsum(axis=1)
    afternoon = time % 86_400 >= 43_200
    taste = item + CATEGORIES * afternoon
    action = rng.random((rows, EVENTS)) < np.take_along_axis(likes, taste, axis=1)
    return _batch(item, action, time=time)


def _batch(item: np.ndarray, action: np.ndarray, *, time: np.ndarray) -> Batch:
    """Return single-event requests that all count."""
    rows = len(item)
    return Batch(
        item=torch.from_numpy(item + 1).int(),
        request=torch.arange(EVENTS, dtype=torch.int32).repeat(rows, 1),
        session=torch.arange(1, EVENTS + 1, dtype=torch.int32).repeat(rows, 1),
        time=torch.from_numpy(time),
        context=torch.zeros(rows, EVENTS, len(CONTEXT_COLUMNS), dtype=torch.int32),
        actions=torch.from_numpy(action).float()[..., None],
        dwell=torch.zeros(rows, EVENTS, dtype=torch.int32),
        target=torch.ones(rows, EVENTS, dtype=torch.bool),
        weight=torch.ones(rows, EVENTS),
        numbers=torch.zeros(rows, EVENTS, 0),
        crosses=torch.zeros(rows, EVENTS, 0, dtype=torch.int32),
        row=torch.arange(rows),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyTraining:
    """Say how long to train.

    Attributes:
        steps: Optimiser steps.
        rows: Users per step.
        learning_rate: Peak of the one-cycle schedule.
    """

    steps: int
    rows: int
    learning_rate: float = 5e-3


class ToyTrainer:
    """Train a ranker of width 32, 2 heads and 2 layers on new users at every step."""

    def __init__(self, users: Users, training: ToyTraining, **config: Any) -> None:
        """Build the model from the seed 0.

        Args:
            users: What draws the users.
            training: Steps and learning rate.
            config: Parts of the ranker that are not the default ones.
        """
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
        self.model = SequenceRanker(SequenceRankerConfig(**settings), spec=spec, items=items)
        set_time_origin(self.model, FIRST_TIME)
        rate, steps = training.learning_rate, training.steps
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, fused=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, rate, total_steps=steps
        )
        self._users, self._rows, self._rng = users, training.rows, np.random.default_rng(0)

    def step(self) -> None:
        """Take one optimiser step."""
        batch = self._users(self._rng, self._rows)
        loss, weight = multi_task_loss(self.model(batch), batch)
        self._optimizer.zero_grad()
        (loss / weight).backward()
        self._optimizer.step()
        self._schedule.step()


def trained(users: Users, training: ToyTraining, **config: Any) -> SequenceRanker:
    """Return a ranker after all its steps, in evaluation mode."""
    trainer = ToyTrainer(users, training, **config)
    for _ in range(training.steps):
        trainer.step()
    return trainer.model.eval()


def late_entropy(model: SequenceRanker, users: Users) -> float:
    """Return the normalised entropy on events 16 to 31 of a thousand new users."""
    batch = users(np.random.default_rng(99), 1000)
    with torch.no_grad():
        probabilities = torch.sigmoid(model(batch))[:, 16:, 0].numpy().ravel()
    return normalized_entropy(batch.actions[:, 16:, 0].numpy().ravel(), probabilities)
