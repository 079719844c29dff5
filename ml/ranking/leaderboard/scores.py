"""Metrics of predictions per action, and of the primary action in slices."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ml.features import BoolArray, FeatureSpec, FloatArray, SequenceData
from ml.metrics import probability_metrics
from ml.ranking.history import PastSums

# Shapes: T target events, A actions.
MIN_POSITIVES = 200
FEW_EVENTS = 10
# Content age is counted in whole local days: bucket 1 is "created that day", see item_numbers.
NEW_ITEM_AGE = 1
SURFACE = "surface "
METRICS = ("ne", "auc", "gauc", "ece", "observed_over_expected")

Scores = dict[str, Any]


def action_scores(
    data: SequenceData,
    probabilities_TA: FloatArray,
    *,
    spec: FeatureSpec,
    least: int = MIN_POSITIVES,
) -> dict[str, Scores]:
    """Return the metrics of each action, or that it has too few positives to judge.

    Args:
        data: Sequences of one split.
        probabilities_TA: Predictions for its target events in order.
        spec: Names of the actions.
        least: Positives from which an action is judged.
    """
    everything = np.ones(int(data.is_target.sum()), bool)
    return {
        name: _scores(data, probabilities_TA[:, bit], bit=bit, chosen=everything, least=least)
        for bit, name in enumerate(spec.actions)
    }


def slice_scores(
    data: SequenceData, probabilities_TA: FloatArray, *, spec: FeatureSpec
) -> dict[str, Scores]:
    """Return the metrics of the primary action in each slice of the target events."""
    bit = spec.primary_index
    return {
        name: _scores(data, probabilities_TA[:, bit], bit=bit, chosen=chosen, least=MIN_POSITIVES)
        for name, chosen in slices(data).items()
    }


def slices(data: SequenceData) -> dict[str, BoolArray]:
    """Return the target events of each slice, by name: users, items and surfaces.

    Earlier events are those of earlier requests, context included. Surfaces are numbered from 1 as
    the source's manifest lists them; a log with one surface has no such slice.
    """
    every = np.ones(data.num_events, np.int64)
    earlier = PastSums(data, every).before(every)
    target, surface = data.is_target, data.surface[data.is_target]
    found: dict[str, BoolArray] = {
        f"users with fewer than {FEW_EVENTS} earlier events": earlier[target] < FEW_EVENTS,
        "items younger than a day": data.age[target] == NEW_ITEM_AGE,
    }
    numbers = np.unique(surface)
    if len(numbers) < 2:
        return found
    return found | {f"{SURFACE}{number}": surface == number for number in numbers}


def _scores(
    data: SequenceData, probabilities: FloatArray, *, bit: int, chosen: BoolArray, least: int
) -> Scores:
    users = data.user[data.event_row][data.is_target][chosen]
    labels = data.labels(bit)[data.is_target][chosen]
    positives = int(labels.sum())
    counts: Mapping[str, Any] = {"rows": len(labels), "positives": positives}
    if positives < least:
        return {**counts, "too_few": True}
    found = probability_metrics(users, labels, probabilities[chosen].astype(np.float64))
    return {**counts, "too_few": False, **{name: found[name] for name in METRICS}}
