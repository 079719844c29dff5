"""Boosted trees as a contender: one booster per action on the numbers and integer columns.

LightGBM is under the MIT licence; its Linux wheel needs the system's OpenMP runtime (libgomp).
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightgbm
import numpy as np

from ml.batches import context_values
from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.contenders import Contender, Exam, Setting
from ml.ranking.expectation import Expectation, fit_expectation
from ml.ranking.numeric_features import numeric_features

# Shapes: T target events, A actions, F features.
# Learning rate and leaves of each trial.
TRIALS = ((0.03, 31), (0.06, 31), (0.06, 127))
_MOST_ROUNDS = 1_000
_PATIENCE_ROUNDS = 30
_FIXED = {
    "objective": "binary",
    "metric": "binary_logloss",
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "cat_smooth": 20.0,
    "max_cat_to_onehot": 8,
}


def contender() -> Contender:
    """Return the contender; a trial sets learning rate and leaves."""
    return partial(_fit, TRIALS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreesScorer:
    """Predict each action by its own booster; one of one class by its rate.

    Attributes:
        items: Facts of the items.
        spec: Vocabulary sizes and actions.
        boosters: One per action; None where train has one class.
        expectation: What train says of users on average.
        train_seconds: Wall time of the fit.
        epochs: Most rounds that a booster kept, each a pass over train.
    """

    items: ItemTable
    spec: FeatureSpec
    boosters: tuple[lightgbm.Booster | None, ...]
    expectation: Expectation
    train_seconds: float
    epochs: float

    @property
    def num_parameters(self) -> int:
        """Return the number of leaves and splits of the rounds that are kept."""
        leaves = [
            tree["num_leaves"]
            for booster in self.boosters
            if booster is not None
            for tree in booster.dump_model(num_iteration=booster.best_iteration)["tree_info"]
        ]
        return sum(2 * number - 1 for number in leaves)

    def probabilities(self, data: SequenceData) -> FloatArray:
        """Return the probability of each action for the target events in order, [T, A]."""
        features_TF, _ = target_features(
            data, items=self.items, spec=self.spec, expectation=self.expectation
        )
        columns = np.empty((len(features_TF), len(self.boosters)))
        for bit, booster in enumerate(self.boosters):
            columns[:, bit] = (
                self.expectation.rates[bit]
                if booster is None
                else np.asarray(booster.predict(features_TF, num_threads=1))
            )
        return columns


def target_features(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, expectation: Expectation
) -> tuple[FloatArray, list[int]]:
    """Return the features of the target events, and which columns are categories.

    Args:
        data: Sequences.
        items: Facts of the items.
        spec: Vocabulary sizes.
        expectation: What train says of users on average.

    Returns:
        float32 [T, F]: the numbers, the context columns, and the item's index, tags, codes and
        author. Context that is ordered (percentiles, age, position, gap) stays a number.
    """
    target = data.is_target
    item = np.where(data.item[target] <= items.num_items, data.item[target], 0)
    numbers = numeric_features(data, items=items, spec=spec, expectation=expectation)[target]
    context = context_values(data, spec)[target]
    facts = [item[:, None], items.tags[item], items.codes[item], items.author[item][:, None]]
    features = np.column_stack([numbers, context, *facts]).astype(np.float32)
    first = numbers.shape[1] + context.shape[1]
    return features, list(range(first, features.shape[1]))


def _fit(
    trials: tuple[tuple[float, int], ...], exam: Exam, setting: Setting, _folder: Path
) -> TreesScorer:
    """Boost on train until validation stops improving."""
    began = time.perf_counter()
    expectation = fit_expectation(exam.splits["train"], items=exam.items, spec=exam.spec)
    features, categories = {}, []
    for name, data in exam.splits.items():
        features[name], categories = target_features(
            data, items=exam.items, spec=exam.spec, expectation=expectation
        )
    learning_rate, leaves = trials[setting.trial]
    chosen = {"learning_rate": learning_rate, "num_leaves": leaves, "seed": setting.seed}
    boosters: list[lightgbm.Booster | None] = []
    for bit, rate in enumerate(expectation.rates):
        labels = {name: data.labels(bit)[data.is_target] for name, data in exam.splits.items()}
        boosters.append(
            _boost(features, labels, categories=categories, parameters={**_FIXED, **chosen})
            if 0 < rate < 1
            else None
        )
    kept = [booster.best_iteration for booster in boosters if booster is not None]
    return TreesScorer(
        items=exam.items,
        spec=exam.spec,
        boosters=tuple(boosters),
        expectation=expectation,
        train_seconds=time.perf_counter() - began,
        epochs=float(max(kept, default=0)),
    )


def _boost(
    features: dict[str, FloatArray],
    labels: dict[str, np.ndarray],
    *,
    categories: list[int],
    parameters: dict[str, object],
) -> lightgbm.Booster:
    """Return the booster of one action, which predicts with its best round."""
    train = lightgbm.Dataset(
        features["train"], labels["train"], categorical_feature=categories, free_raw_data=False
    )
    validation = train.create_valid(features["validation"], labels["validation"])
    return lightgbm.train(
        dict(parameters),
        train,
        num_boost_round=_MOST_ROUNDS,
        valid_sets=[validation],
        callbacks=[lightgbm.early_stopping(_PATIENCE_ROUNDS, verbose=False)],
    )
