"""Rates of actions as log-odds: of the train split, and smoothed ones of an item or a past."""

import numpy as np

from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData

# Shapes: E events, A actions.
PRIOR_EVENTS = 10.0
# A base rate is kept this far from 0 and 1, so that an action that never happened has log-odds.
_RATE_MARGIN = 1e-5
COUNT_SCALE = 4.0


def base_rates(train: SequenceData, *, spec: FeatureSpec) -> FloatArray:
    """Return each action's share of the target events, [A].

    Raises:
        ValueError: If there is no target event.
    """
    if not train.is_target.any():
        raise ValueError("the train split has no target event; base rates need one")
    actions = train.actions[train.is_target]
    return np.array([((actions >> bit) & 1).mean() for bit in range(len(spec.actions))])


def log_odds(rate: FloatArray | float) -> FloatArray:
    """Return the log-odds of a rate, which is kept a margin away from 0 and 1."""
    kept = np.clip(rate, _RATE_MARGIN, 1 - _RATE_MARGIN)
    return np.log(kept / (1 - kept))


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
    return log_odds((positive + prior * base) / (shown + prior)) - log_odds(base)


def counter_numbers(
    data: SequenceData, *, rate: float, prior: float = PRIOR_EVENTS
) -> tuple[FloatArray, FloatArray]:
    """Return the log-odds of the item's 7-day rate and the log of its 7-day count, [E] each.

    Args:
        data: Sequences.
        rate: Base rate of the primary action.
        prior: Weight of the base rate, in impressions.
    """
    shown = data.impressions_7d.astype(np.float64)
    odds = smoothed_log_odds(data.positives_7d, shown, base=rate, prior=prior)
    return odds, np.log1p(shown) / COUNT_SCALE
