"""A small exam with a planted taste, for tests of the leaderboard."""

from pathlib import Path

import numpy as np

from ml.features import SequenceData
from ml.ranking.leaderboard.exam_folder import ExamFolder, data_version
from ml.ranking.leaderboard.plan import BoardConfig
from ml.ranking.leaderboard.recipes import Claim
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences


def planted_splits(users: int = 60, events: int = 30) -> dict[str, SequenceData]:
    """Return splits whose clicks follow a taste for tags and the position."""
    splits = {}
    taste = np.random.default_rng(9).normal(size=(users + 1, 6)) * 2
    for seed, split in enumerate(("train", "validation", "test")):
        data = sequences([events] * users, split=split, seed=seed)
        logit = taste[data.user[data.event_row], item_table().tags[data.item, 0]]
        rate = 1 / (1 + np.exp(0.15 * data.position - logit))
        click = (np.random.default_rng(seed).random(data.num_events) < rate).astype(np.int32)
        splits[split] = changed(
            data,
            actions=data.actions & ~1 | click,
            true_probability=rate,
            reachable_probability=rate,
        )
    return splits


def saved_exam(path: Path, splits: dict[str, SequenceData]) -> ExamFolder:
    """Write an exam of the splits."""
    return ExamFolder(path=path).save(splits, items=item_table(), spec=feature_spec())


def board_config(splits: dict[str, SequenceData], recipes: dict[str, str]) -> BoardConfig:
    """Return the leaderboard of the splits as if they were the simulated feed."""
    version = data_version(splits, items=item_table(), spec=feature_spec())
    claim = Claim(recipe="logistic_regression", rival="popularity")
    return BoardConfig(
        source="simulated", data=version, primary="click", recipes=recipes, claims=(claim,)
    )
