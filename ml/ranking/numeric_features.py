"""Numbers about an event known when it is shown: how the item did, how its user took its like.

Every number is causal. The item's counters are of the days before the event; the user's past is
of earlier requests, counted overall, per tag, per item and per author, once for each action, and
compared with what users on average would have done.
"""

from collections.abc import Mapping

import numpy as np

from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.expectation import EVIDENCE_NAMES, Evidence, Expectation
from ml.ranking.history import PastSums
from ml.ranking.rates import (
    COUNT_SCALE,
    PRIOR_EVENTS,
    counter_numbers,
    log_odds,
    smoothed_log_odds,
)

PAST_GROUPS = ("user", "tag", "item", "author")
# An item is seldom shown to a user twice: its past has counts and rates only.
EVIDENCE_GROUPS = ("user", "tag", "author")
NUMBER_NAMES = (
    "item_rate_7d",
    "item_count_7d",
    *(f"{group}_past_{kind}" for group in PAST_GROUPS for kind in ("count", "rate")),
    "expected_log_odds",
    *(f"{group}_past_{kind}" for group in EVIDENCE_GROUPS for kind in EVIDENCE_NAMES),
)

# Shapes: E events, A actions, F numbers, T groups per event.


def number_names(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the name of each column of `numeric_features`: past rates are one per action."""
    return tuple(
        column
        for name in NUMBER_NAMES
        for column in (
            [f"{name}_{action}" for action in spec.actions] if name.endswith("rate") else [name]
        )
    )


def numeric_features(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, expectation: Expectation
) -> FloatArray:
    """Return the numbers of every event, about unit scale, 0 where nothing is known.

    Args:
        data: Sequences.
        items: Facts of the items.
        spec: Ordered actions; the item's counters are of the primary one.
        expectation: Fitted on the train split.

    Returns:
        float32 [E, F], columns as in `number_names`.

    Raises:
        ValueError: If there is not one rate per action.
    """
    rates, primary = expectation.rates, spec.primary_index
    if rates.shape != (len(spec.actions),):
        raise ValueError(f"rates must hold one number for each of {spec.actions}")
    columns = list(counter_numbers(data, rate=rates[primary]))
    grouped = past_groups(data, items)
    for groups in grouped.values():
        numbers = PastNumbers(data, groups)
        columns.append(numbers.count)
        columns += [numbers.rate(data.labels(bit), base=base) for bit, base in enumerate(rates)]
    expected = expectation.log_odds(data, items=items, spec=spec)
    columns.append(expected - log_odds(rates[primary]))
    evidence = past_evidence(data, items=items, spec=spec, expectation=expectation)
    for group in EVIDENCE_GROUPS:
        columns += evidence.numbers(data, grouped[group])
    return np.stack(columns, axis=1).astype(np.float32)


def past_evidence(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, expectation: Expectation
) -> Evidence:
    """Return what compares each event's primary action with what users on average would do."""
    expected = expectation.probability(data, items=items, spec=spec)
    return Evidence(data.labels(spec.primary_index), expected)


def past_groups(data: SequenceData, items: ItemTable) -> Mapping[str, IntArray]:
    """Return the group numbers of each event by the names of `PAST_GROUPS`, 0 for none."""
    item = np.where(data.item <= items.num_items, data.item, 0)
    groups = (np.ones(data.num_events, np.int64), items.tags[item], data.item, items.author[item])
    return dict(zip(PAST_GROUPS, groups, strict=True))


class PastNumbers:
    """The user's past in a group, or the mean over an event's several groups."""

    def __init__(
        self, data: SequenceData, groups: IntArray, *, prior: float = PRIOR_EVENTS
    ) -> None:
        """Sort and count the past.

        Args:
            data: Sequences.
            groups: Group numbers of each event, [E] or [E, T]; 0 for none.
            prior: Weight of the base rate, in events.
        """
        self._past = PastSums(data, groups.reshape(data.num_events, -1))
        self._shown = self._past.before(np.ones(data.num_events))
        self._known = np.maximum((groups.reshape(data.num_events, -1) > 0).sum(axis=1), 1)
        self._prior = prior

    @property
    def count(self) -> FloatArray:
        """Return the log of how much was shown, [E]."""
        return np.log1p(self._shown).sum(axis=1) / self._known / COUNT_SCALE

    def rate(self, labels: IntArray, *, base: float) -> FloatArray:
        """Return the log-odds of the smoothed rate relative to the base rate, [E].

        Args:
            labels: 0 or 1 per event, [E].
            base: Base rate of the action.
        """
        positive = self._past.before(labels)
        odds = smoothed_log_odds(positive, self._shown, base=base, prior=self._prior)
        return odds.sum(axis=1) / self._known
