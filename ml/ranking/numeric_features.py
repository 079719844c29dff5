"""Numbers about an event known when it is shown: how the item did, how its user took its like.

Every number is causal. The item's counters are of the days before the event; the user's past is
of earlier requests, counted overall, per tag, per item and per author, once for each action.
"""

from collections.abc import Mapping

import numpy as np

from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.history import PastSums

PRIOR_EVENTS = 10.0
# A base rate is kept this far from 0 and 1, so that an action that never happened has log-odds.
_RATE_MARGIN = 1e-5
_COUNT_SCALE = 4.0
PAST_GROUPS = ("user", "tag", "item", "author")
NUMBER_NAMES = (
    "item_rate_7d",
    "item_count_7d",
    *(f"{group}_past_{kind}" for group in PAST_GROUPS for kind in ("count", "rate")),
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


def base_rates(train: SequenceData, *, spec: FeatureSpec) -> FloatArray:
    """Return each action's share of the target events, [A].

    Raises:
        ValueError: If there is no target event.
    """
    if not train.is_target.any():
        raise ValueError("the train split has no target event; base rates need one")
    actions = train.actions[train.is_target]
    return np.array([((actions >> bit) & 1).mean() for bit in range(len(spec.actions))])


def numeric_features(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, rates: FloatArray
) -> FloatArray:
    """Return the numbers of every event, about unit scale, 0 where nothing is known.

    Args:
        data: Sequences.
        items: Facts of the items.
        spec: Ordered actions; the item's counters are of the primary one.
        rates: Base rate of each action in the train split, [A].

    Returns:
        float32 [E, F], columns as in `number_names`.

    Raises:
        ValueError: If there is not one rate per action.
    """
    if rates.shape != (len(spec.actions),):
        raise ValueError(f"rates must hold one number for each of {spec.actions}")
    columns = list(counter_numbers(data, rate=rates[spec.primary_index]))
    for groups in past_groups(data, items).values():
        numbers = PastNumbers(data, groups)
        columns.append(numbers.count)
        columns += [numbers.rate(data.labels(bit), base=base) for bit, base in enumerate(rates)]
    return np.stack(columns, axis=1).astype(np.float32)


def past_groups(data: SequenceData, items: ItemTable) -> Mapping[str, IntArray]:
    """Return the group numbers of each event by the names of `PAST_GROUPS`, 0 for none."""
    item = np.where(data.item <= items.num_items, data.item, 0)
    groups = (np.ones(data.num_events, np.int64), items.tags[item], data.item, items.author[item])
    return dict(zip(PAST_GROUPS, groups, strict=True))


def counter_numbers(
    data: SequenceData, *, rate: float, prior: float = PRIOR_EVENTS
) -> tuple[FloatArray, FloatArray]:
    """Return the log-odds of the item's 7-day rate and the log of its 7-day count.

    Args:
        data: Sequences.
        rate: Base rate of the primary action.
        prior: Weight of the base rate, in impressions.
    """
    shown = data.impressions_7d.astype(np.float64)
    odds = smoothed_log_odds(data.positives_7d, shown, base=rate, prior=prior)
    return odds, np.log1p(shown) / _COUNT_SCALE


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
        return np.log1p(self._shown).sum(axis=1) / self._known / _COUNT_SCALE

    def rate(self, labels: IntArray, *, base: float) -> FloatArray:
        """Return the log-odds of the smoothed rate relative to the base rate, [E].

        Args:
            labels: 0 or 1 per event, [E].
            base: Base rate of the action.
        """
        positive = self._past.before(labels)
        odds = smoothed_log_odds(positive, self._shown, base=base, prior=self._prior)
        return odds.sum(axis=1) / self._known


def smoothed_log_odds(
    positive: FloatArray | IntArray, shown: FloatArray, *, base: float, prior: float
) -> FloatArray:
    """Return the log-odds of a smoothed rate minus those of the base rate; 0 if none was shown.

    Args:
        positive: Events with the action.
        shown: All events.
        base: Base rate; kept a margin away from 0 and 1, as is the smoothed rate.
        prior: Weight of the base rate, in events.
    """
    base = min(max(float(base), _RATE_MARGIN), 1 - _RATE_MARGIN)
    smoothed = (positive + prior * base) / (shown + prior)
    smoothed = np.clip(smoothed, _RATE_MARGIN, 1 - _RATE_MARGIN)
    return np.log(smoothed / (1 - smoothed)) - np.log(base / (1 - base))
