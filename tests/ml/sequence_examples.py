"""Small sequences, item tables and models for the ranker's tests."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from ml.batches import Batch, BatchConfig, SequenceBatches
from ml.features import SPLITS, FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.expectation import Expectation, num_weights
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.model import SequenceRanker

ACTIONS = ("click", "like", "share")
NUM_ITEMS = 40
RATES = (0.5, 0.2, 0.1)


def item_table(num_items: int = NUM_ITEMS) -> ItemTable:
    """Return items with one or two tags, two code levels and an author."""
    rng = np.random.default_rng(1)
    tags = rng.integers(1, 6, (num_items + 1, 2)).astype(np.int32)
    tags[::3, 1] = 0
    codes = rng.integers(1, 9, (num_items + 1, 2)).astype(np.int32)
    author = rng.integers(1, 12, num_items + 1).astype(np.int32)
    for array in (tags, codes, author):
        array[0] = 0
    return ItemTable(
        tags=tags,
        codes=codes,
        author=author,
        embedding=rng.normal(size=(num_items + 1, 6)).astype(np.float32),
        tag_names=np.array(["a", "b", "c", "d", "e"]),
    )


def feature_spec(num_items: int = NUM_ITEMS) -> FeatureSpec:
    """Return the vocabulary of `item_table`."""
    return FeatureSpec(
        num_items=num_items,
        actions=ACTIONS,
        primary_action="click",
        num_tags=6,
        num_authors=12,
        code_sizes=(9, 9),
        num_surfaces=3,
    )


def expectation(
    spec: FeatureSpec | None = None, *, rates: tuple[float, ...] = RATES
) -> Expectation:
    """Return base rates, and a regression with a random weight for everything."""
    count = num_weights(spec or feature_spec())
    weights = np.random.default_rng(5).normal(0, 0.3, count)
    return Expectation(rates=np.array(rates), weights=weights)


def sequences(
    lengths: list[int], *, request_size: int = 3, split: str = "train", seed: int = 0
) -> SequenceData:
    """Return random sequences whose requests hold `request_size` events."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    step = np.concatenate([np.arange(length) for length in lengths])
    limits = {"item": (1, NUM_ITEMS + 1), "actions": (0, 8), "dwell": (0, 9), "position": (0, 12)}
    limits |= {"surface": (0, 3), "hour": (0, 24), "weekday": (0, 7), "age": (0, 6)}
    limits |= {"popularity": (0, 101), "rate": (0, 101)}
    limits |= {"impressions_7d": (20, 99), "positives_7d": (0, 20)}
    columns = {n: rng.integers(*limit, total).astype(np.int32) for n, limit in limits.items()}
    request = (step // request_size).astype(np.int32)
    return SequenceData(
        offsets=offsets,
        user=np.arange(1, len(lengths) + 1, dtype=np.int32),
        split=np.full(len(lengths), SPLITS.index(split), np.int8),
        request=request,
        session=1 + request // 2,
        propensity=np.full(total, 0.25),
        is_shuffled=np.zeros(total, bool),
        time=1_700_000_000 + request.astype(np.int64) * 1_000,
        is_target=np.ones(total, bool),
        true_probability=np.full(total, 0.5),
        reachable_probability=np.full(total, 0.5),
        **columns,
    )


def changed(data: SequenceData, **columns: np.ndarray) -> SequenceData:
    """Return the data with other columns."""
    kept = {field.name: getattr(data, field.name) for field in fields(data)}
    return SequenceData(**(kept | columns))


def one_batch(data: SequenceData) -> Batch:
    """Return all rows as one batch, shortest first."""
    config = BatchConfig(events=1_000_000)
    return next(SequenceBatches(data, spec=feature_spec(), config=config).once())


def small_model(**config: Any) -> SequenceRanker:
    """Return a small model in evaluation mode whose every parameter is random."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 16, "heads": 2, "layers": 2, "head_width": 16} | config
    model = SequenceRanker(
        SequenceRankerConfig(**settings), spec=feature_spec(), items=item_table()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
