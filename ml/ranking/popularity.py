"""The two simplest references: the base rate, and popularity with position."""

from collections.abc import Mapping

import numpy as np

from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.logistic_regression import (
    POPULARITY_BLOCKS,
    BaselineResult,
    LogisticRegressionConfig,
    fit_and_score,
)


def popularity_baseline(
    splits: Mapping[str, SequenceData], *, items: ItemTable, spec: FeatureSpec, action: str
) -> BaselineResult:
    """Fit the item's counters and the position, and nothing about the user.

    Args:
        splits: Sequences of train, validation and test.
        items: Facts of the items.
        spec: Vocabulary sizes.
        action: The action to predict.
    """
    config = LogisticRegressionConfig(blocks=POPULARITY_BLOCKS, strengths=(0.1, 1.0))
    return fit_and_score(splits, items=items, spec=spec, action=action, config=config)


def base_rate(splits: Mapping[str, SequenceData], *, spec: FeatureSpec, action: str) -> FloatArray:
    """Return the train split's rate of an action for each target event of the test split."""
    bit = spec.actions.index(action)
    train, test = splits["train"], splits["test"]
    rate = train.labels(bit)[train.is_target].mean()
    return np.full(int(test.is_target.sum()), rate)
