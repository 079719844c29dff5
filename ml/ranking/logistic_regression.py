"""A logistic regression that is not starved: ids, counters, time, place and the user's past.

One column block per feature, sparse; the regularisation is chosen on the validation split. It
knows no interactions but the per-tag and per-item rates of the user's own past.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from ml.batches import NUM_GAP_BUCKETS, gap_buckets
from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.metrics import log_loss
from ml.ranking.contenders import Exam
from ml.ranking.expectation import Expectation, fit_expectation
from ml.ranking.numeric_features import (
    EVIDENCE_GROUPS,
    PastNumbers,
    past_evidence,
    past_groups,
)
from ml.ranking.rates import PRIOR_EVENTS, counter_numbers

# Shapes: T target events.
_MULTIPLIER = 2654435761


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticRegressionConfig:
    """Choose features and regularisations.

    Attributes:
        blocks: Feature blocks, names of `BLOCKS`.
        id_buckets: Hash buckets of user ids and of item ids.
        strengths: Inverse regularisations to try, weak data first.
        prior_events: Weight of the mean in smoothed rates.
        max_iterations: Solver iterations per strength.
    """

    blocks: tuple[str, ...] = ()
    id_buckets: int = 1 << 17
    strengths: tuple[float, ...] = (0.003, 0.01, 0.1, 1.0)
    prior_events: float = PRIOR_EVENTS
    max_iterations: int = 200

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a block is unknown or nothing is to be tried.
        """
        if unknown := sorted(set(self.blocks) - set(BLOCKS)):
            raise ValueError(f"unknown feature block {unknown[0]!r}; choose from {BLOCKS}")
        if not self.strengths:
            raise ValueError("strengths must not be empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineResult:
    """Hold a fitted baseline's probabilities.

    Attributes:
        probabilities: Of the test split's target events, in the data's order.
        validation_log_loss: Of the chosen strength.
        strength: The chosen inverse regularisation.
        num_features: Columns of the design matrix.
    """

    probabilities: FloatArray
    validation_log_loss: float
    strength: float
    num_features: int


BLOCKS = (
    "user_id",
    "item_id",
    "author",
    "tags",
    "codes",
    "counters",
    "percentiles",
    "hour",
    "weekday",
    "position",
    "surface",
    "age",
    "gap",
    "user_rate",
    "tag_rate",
    "item_past",
    "evidence",
)
POPULARITY_BLOCKS = ("counters", "percentiles", "position")


def fit_and_score(
    splits: Mapping[str, SequenceData],
    *,
    items: ItemTable,
    spec: FeatureSpec,
    action: str,
    config: LogisticRegressionConfig | None = None,
) -> BaselineResult:
    """Fit on train, choose the regularisation on validation, score test.

    Args:
        splits: Sequences of train, validation and test.
        items: Facts of the items.
        spec: Vocabulary sizes.
        action: The action to predict.
        config: Features and regularisations; all blocks by default.

    Raises:
        ValueError: If the train split has one class only.
    """
    config = config or LogisticRegressionConfig(blocks=BLOCKS)
    bit = spec.actions.index(action)
    labels = {name: data.labels(bit)[data.is_target] for name, data in splits.items()}
    rate = float(labels["train"].mean()) if len(labels["train"]) else 0.0
    if not 0 < rate < 1:
        raise ValueError(f"action {action!r} has one class only in the train split")
    expectation = fit_expectation(splits["train"], items=items, spec=spec)
    about = _About(items=items, spec=spec, bit=bit, rate=rate, expectation=expectation)
    design = {name: _Design(data, about).matrix(config) for name, data in splits.items()}
    model = LogisticRegression(solver="lbfgs", max_iter=config.max_iterations, warm_start=True)
    best: BaselineResult | None = None
    for strength in config.strengths:
        model.set_params(C=strength)
        model.fit(design["train"], labels["train"])
        loss = log_loss(labels["validation"], _positive(model, design["validation"]))
        if best is None or loss < best.validation_log_loss:
            best = BaselineResult(
                probabilities=_positive(model, design["test"]),
                validation_log_loss=loss,
                strength=strength,
                num_features=model.coef_.shape[1],
            )
    assert best is not None
    return best


def design_matrix(
    exam: Exam,
    data: SequenceData,
    *,
    bit: int,
    expectation: Expectation,
    config: LogisticRegressionConfig,
) -> csr_matrix:
    """Return the features of the target events, [T, features].

    Args:
        exam: Items and vocabulary sizes.
        data: Sequences to describe.
        bit: Position of the action.
        expectation: What train says of users on average, and the rate of the action.
        config: The blocks.
    """
    rate = float(expectation.rates[bit])
    about = _About(items=exam.items, spec=exam.spec, bit=bit, rate=rate, expectation=expectation)
    return _Design(data, about).matrix(config)


def _positive(model: LogisticRegression, design: csr_matrix) -> FloatArray:
    """Return the probability of the action."""
    return model.predict_proba(design)[:, 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class _About:
    """Hold what a design is made for: items, vocabulary, the action and the average users."""

    items: ItemTable
    spec: FeatureSpec
    bit: int
    rate: float
    expectation: Expectation


class _Design:
    """Collect sparse columns of the target events."""

    def __init__(self, data: SequenceData, about: _About) -> None:
        self._data, self._items, self._spec = data, about.items, about.spec
        self._rate, self._expectation = about.rate, about.expectation
        self._target = data.is_target
        self._labels = data.labels(about.bit)
        self._item = np.where(data.item <= about.items.num_items, data.item, 0)
        self._columns: list[IntArray] = []
        self._values: list[FloatArray] = []
        self._width = 0

    def matrix(self, config: LogisticRegressionConfig) -> csr_matrix:
        """Return the design of the chosen blocks, [T, features]."""
        self._config = config
        for block in config.blocks:
            getattr(self, f"_add_{block}")()
        rows = int(self._target.sum())
        columns = np.stack(self._columns, axis=1)
        values = np.stack(self._values, axis=1).astype(np.float32)
        starts = np.arange(rows + 1) * columns.shape[1]
        matrix = csr_matrix((values.ravel(), columns.ravel(), starts), (rows, self._width))
        matrix.eliminate_zeros()
        return matrix

    def _one_hot(self, values: IntArray, size: int) -> None:
        """Add a categorical column of the target events, or several that share weights."""
        values = values[self._target].reshape(int(self._target.sum()), -1)
        share = 1.0 / np.maximum((values > 0).sum(axis=1), 1)
        for column in values.T:
            known = (column >= 0) & (column < size)
            self._columns.append(np.where(known, column, 0).astype(np.int32) + self._width)
            self._values.append(np.where(known, share if values.shape[1] > 1 else 1.0, 0.0))
        self._width += size

    def _number(self, values: FloatArray) -> None:
        """Add a numeric column of the target events."""
        values = values[self._target]
        self._columns.append(np.full(len(values), self._width, np.int32))
        self._values.append(values)
        self._width += 1

    def _hashed(self, values: IntArray) -> None:
        """Add an id column by hash."""
        size = self._config.id_buckets
        mixed = (values.astype(np.uint64) * np.uint64(_MULTIPLIER)) % np.uint64(1 << 32)
        self._one_hot((mixed % np.uint64(size)).astype(np.int64), size)

    def _past(self, group: str) -> None:
        """Add log odds and log count of the user's past in a group."""
        groups = past_groups(self._data, self._items)[group]
        numbers = PastNumbers(self._data, groups, prior=self._config.prior_events)
        self._number(numbers.rate(self._labels, base=self._rate))
        self._number(numbers.count)

    def _add_user_id(self) -> None:
        self._hashed(self._data.user[self._data.event_row])

    def _add_item_id(self) -> None:
        self._hashed(self._data.item)

    def _add_author(self) -> None:
        self._one_hot(self._items.author[self._item], self._spec.num_authors)

    def _add_tags(self) -> None:
        self._one_hot(self._items.tags[self._item], self._spec.num_tags)

    def _add_codes(self) -> None:
        for level, size in enumerate(self._spec.code_sizes):
            self._one_hot(self._items.codes[self._item, level], size)

    def _add_counters(self) -> None:
        for numbers in counter_numbers(
            self._data, rate=self._rate, prior=self._config.prior_events
        ):
            self._number(numbers)

    def _add_percentiles(self) -> None:
        for values in (self._data.popularity, self._data.rate):
            self._one_hot((values + 4) // 5, 21)

    def _add_hour(self) -> None:
        self._one_hot(self._data.hour + 1, 25)

    def _add_weekday(self) -> None:
        self._one_hot(self._data.weekday + 1, 8)

    def _add_position(self) -> None:
        self._one_hot(self._data.position, self._spec.max_position)

    def _add_surface(self) -> None:
        self._one_hot(self._data.surface, self._spec.num_surfaces)

    def _add_age(self) -> None:
        self._one_hot(self._data.age, self._spec.num_age_buckets)

    def _add_gap(self) -> None:
        self._one_hot(gap_buckets(self._data), NUM_GAP_BUCKETS)

    def _add_user_rate(self) -> None:
        self._past("user")

    def _add_tag_rate(self) -> None:
        self._past("tag")

    def _add_item_past(self) -> None:
        self._past("item")

    def _add_evidence(self) -> None:
        about = {"items": self._items, "spec": self._spec}
        self._number(self._expectation.log_odds(self._data, **about))
        evidence = past_evidence(self._data, **about, expectation=self._expectation)
        groups = past_groups(self._data, self._items)
        for group in EVIDENCE_GROUPS:
            for number in evidence.numbers(self._data, groups[group]):
                self._number(number)
