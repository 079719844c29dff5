"""What users on average would have done with an event: the measure of a user's own past.

Ten clicks at the top of the page on popular items say less about a user than ten at the bottom on
items that nobody opens. A regression on what all users share (place, time, the item's counters)
gives each event its expected click; a past is then told by its clicks over expected clicks. It
knows no user, no item and no history.

Source: clicks over expected clicks after Zhang and Jones 2007 (position-normalised click-through
rates); the regression is OUR CHOICE.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.history import PastSums
from ml.ranking.rates import COUNT_SCALE, base_rates, counter_numbers, log_odds

# Shapes: E events, A actions, W weights, T groups per event.
_HOURS = 25  # local hour, 0 is unknown
_NUM_COUNTERS = 3
_STRENGTH, _ITERATIONS = 1.0, 200
# Added to clicks and to expected clicks, so that a short past says little.
_PRIOR_CLICKS = 0.5
EVIDENCE_NAMES = ("lift", "surprise", "expected")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Expectation:
    """Hold what the train split says of users on average.

    Attributes:
        rates: Base rate of each action, [A].
        weights: Of the regression of the primary action, [W] as `num_weights` counts them: the
            intercept, the counters, surface, age, first tag by hour, and at last the position.
    """

    rates: FloatArray
    weights: FloatArray

    def log_odds(self, data: SequenceData, *, items: ItemTable, spec: FeatureSpec) -> FloatArray:
        """Return the expected log-odds of the primary action at no position of its own, [E].

        So it may be a feature of a candidate whose position is not known yet.
        """
        first = len(self.weights) - spec.max_position
        weights = np.where(np.arange(len(self.weights)) < first, self.weights, 0.0)
        return self._design(data, items, spec) @ weights

    def probability(self, data: SequenceData, *, items: ItemTable, spec: FeatureSpec) -> FloatArray:
        """Return the expected probability of the primary action of each event as shown, [E]."""
        return expit(self._design(data, items, spec) @ self.weights)

    def _design(self, data: SequenceData, items: ItemTable, spec: FeatureSpec) -> csr_matrix:
        return _design(data, items=items, spec=spec, rate=self.rates[spec.primary_index])


def num_weights(spec: FeatureSpec) -> int:
    """Return how many weights an expectation has for a vocabulary."""
    return 1 + _NUM_COUNTERS + sum(_sizes(spec))


def plain_expectation(train: SequenceData, *, spec: FeatureSpec) -> Expectation:
    """Return the expectation that is the base rate everywhere, for who needs no more of it.

    Raises:
        ValueError: If there is no target event.
    """
    rates = base_rates(train, spec=spec)
    weights = np.zeros(num_weights(spec))
    weights[0] = log_odds(rates[spec.primary_index])
    return Expectation(rates=rates, weights=weights)


def fit_expectation(train: SequenceData, *, items: ItemTable, spec: FeatureSpec) -> Expectation:
    """Fit the regression on the target events; a train split of one class gives the base rate.

    Raises:
        ValueError: If there is no target event.
    """
    # A second of imports that a worker whose recipe fits no regression does not need.
    from sklearn.linear_model import LogisticRegression

    plain = plain_expectation(train, spec=spec)
    rate = plain.rates[spec.primary_index]
    if not 0 < rate < 1:
        return plain
    design = _design(train, items=items, spec=spec, rate=rate)[train.is_target]
    labels = train.labels(spec.primary_index)[train.is_target]
    # The intercept is a column of its own: the regression's is not to be penalised twice.
    model = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS).fit(design[:, 1:], labels)
    weights = np.concatenate([model.intercept_, model.coef_[0]])
    return Expectation(rates=plain.rates, weights=weights)


class Evidence:
    """Compare a user's clicks with the expected ones, overall or in a group."""

    def __init__(self, labels: IntArray, expected: FloatArray) -> None:
        """Take the primary action, 0 or 1, and its expected probability, of every event, [E]."""
        self._labels, self._expected = labels, expected

    def numbers(self, data: SequenceData, groups: IntArray) -> list[FloatArray]:
        """Return the numbers of `EVIDENCE_NAMES`, [E] each; means over an event's groups.

        The log of clicks over expected clicks, their difference in standard deviations, and the
        log of the expected clicks; all of earlier requests.

        Args:
            data: Sequences.
            groups: Group numbers of each event, [E] or [E, T]; 0 for none.
        """
        groups_ET = groups.reshape(data.num_events, -1)
        past = PastSums(data, groups_ET)
        clicks, expected = past.before(self._labels), past.before(self._expected)
        variance = past.before(self._expected * (1 - self._expected))
        lift = np.log((clicks + _PRIOR_CLICKS) / (expected + _PRIOR_CLICKS))
        surprise = (clicks - expected) / np.sqrt(variance + 1.0)
        known = np.maximum((groups_ET > 0).sum(axis=1), 1)
        numbers = (lift, surprise, np.log1p(expected) / COUNT_SCALE)
        return [number_ET.sum(axis=1) / known for number_ET in numbers]


def _sizes(spec: FeatureSpec) -> tuple[int, ...]:
    """Return the vocabulary of each categorical block, the position's last."""
    return spec.num_surfaces, spec.num_age_buckets, spec.num_tags * _HOURS, spec.max_position


def _design(data: SequenceData, *, items: ItemTable, spec: FeatureSpec, rate: float) -> csr_matrix:
    """Return what users share about each event, [E, W]."""
    item = np.where(data.item <= items.num_items, data.item, 0)
    tag = items.tags[item, 0] if items.tags.shape[1] else np.zeros_like(item)
    facts = (data.surface, data.age, tag * _HOURS + data.hour + 1, data.position)
    odds, count = counter_numbers(data, rate=rate)
    values = [np.ones(data.num_events), odds, count, odds * count]
    columns = [np.full(data.num_events, place) for place in range(len(values))]
    width = len(values)
    for fact, size in zip(facts, _sizes(spec), strict=True):
        is_known = (fact > 0) & (fact < size)
        columns.append(np.where(is_known, fact, 0) + width)
        values.append(is_known.astype(np.float64))
        width += size
    starts = np.arange(data.num_events + 1) * len(values)
    entries = np.stack(values, axis=1).ravel(), np.stack(columns, axis=1).ravel()
    return csr_matrix((*entries, starts), (data.num_events, width))
