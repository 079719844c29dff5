"""Random data for benchmarks of the rankers: rows of equal length, without padding."""

import numpy as np

from ml.features import SPLITS, FeatureSpec, SequenceData
from ml.item_table import ItemTable

NUM_ITEMS = 10_000
ACTIONS = ("click", "like", "share")


def feature_spec() -> FeatureSpec:
    """Return a vocabulary of tags, codes and authors of a usual size."""
    return FeatureSpec(
        num_items=NUM_ITEMS,
        actions=ACTIONS,
        primary_action=ACTIONS[0],
        num_tags=64,
        num_authors=256,
        code_sizes=(33, 33, 33),
        num_surfaces=4,
    )


def item_table() -> ItemTable:
    """Return random items with two tags, three codes and an author."""
    rng = np.random.default_rng(1)
    return ItemTable(
        tags=rng.integers(1, 64, (NUM_ITEMS + 1, 2)).astype(np.int32),
        codes=rng.integers(1, 33, (NUM_ITEMS + 1, 3)).astype(np.int32),
        author=rng.integers(1, 256, NUM_ITEMS + 1).astype(np.int32),
        embedding=np.zeros((NUM_ITEMS + 1, 0), np.float32),
        tag_names=np.array([], str),
    )


def sequences(rows: int, *, events: int, split: str = "train") -> SequenceData:
    """Return rows of equal length, one request per event."""
    rng, total = np.random.default_rng(2), rows * events
    limits = {"item": NUM_ITEMS, "actions": 8, "dwell": 9, "position": 12, "surface": 3}
    limits |= {"hour": 24, "weekday": 7, "age": 6, "popularity": 101, "rate": 101}
    limits |= {"impressions_7d": 99, "positives_7d": 20}
    columns = {n: rng.integers(0, limit, total).astype(np.int32) for n, limit in limits.items()}
    step = np.tile(np.arange(events, dtype=np.int32), rows)
    return SequenceData(
        offsets=np.arange(rows + 1, dtype=np.int64) * events,
        user=np.arange(1, rows + 1, dtype=np.int32),
        split=np.full(rows, SPLITS.index(split), np.int8),
        request=step,
        session=1 + step // 8,
        propensity=np.full(total, np.nan),
        is_shuffled=np.zeros(total, bool),
        time=1_700_000_000 + step.astype(np.int64) * 600,
        is_target=np.ones(total, bool),
        true_probability=np.full(total, np.nan),
        reachable_probability=np.full(total, np.nan),
        **columns,
    )
