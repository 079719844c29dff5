"""What a user did before each request, counted for every event without looking at its own request.

Vectorised sums over sequences: for each event, how often its user was shown something of the same
group (an item, a tag, anything) in earlier requests, and how often the action followed.
"""

from dataclasses import dataclass

import numpy as np

from ml.features import BoolArray, FloatArray, IntArray, SequenceData, merged_requests

# Shapes: E events, T groups per event.


@dataclass(frozen=True, kw_only=True, slots=True)
class PastCounts:
    """Hold counts over earlier requests.

    Attributes:
        shown: Earlier events of the group.
        positive: Earlier events of the group that had the action.
    """

    shown: FloatArray
    positive: FloatArray

    def log_odds(self, *, rate: float, prior: float) -> FloatArray:
        """Return the log odds of the smoothed rate relative to those of the prior rate."""
        smoothed = (self.positive + prior * rate) / (self.shown + prior)
        return np.log(smoothed / (1 - smoothed)) - np.log(rate / (1 - rate))


def past_counts(data: SequenceData, groups: IntArray, *, labels: IntArray) -> PastCounts:
    """Count earlier events of the same row and group.

    Args:
        data: Sequences.
        groups: Group numbers of each event, [E] or [E, T]; 0 belongs to no group.
        labels: 0 or 1 per event, [E].

    Returns:
        Counts of the groups' shape; 0 where the group is 0.
    """
    groups = groups.reshape(data.num_events, -1)
    width = groups.shape[1]
    event = np.repeat(np.arange(data.num_events), width)
    group = groups.reshape(-1)
    row = data.event_row[event]
    key = row.astype(np.int64) * (int(groups.max(initial=0)) + 1) + group
    order = np.argsort(key, kind="stable")
    key, event = key[order], event[order]
    # Within a key the events stay in time order; a run is one key in one request.
    request = merged_requests(data)[event]
    new_key = _starts(key)
    new_run = new_key | _starts(request)
    shown = _before(np.ones(len(key)), new_key, new_run)
    positive = _before(labels[event].astype(np.float64), new_key, new_run)
    counts = np.zeros((2, len(key)))
    counts[:, order] = shown, positive
    counts *= group > 0
    shape = groups.shape if width > 1 else (data.num_events,)
    return PastCounts(shown=counts[0].reshape(shape), positive=counts[1].reshape(shape))


def _starts(values: IntArray) -> BoolArray:
    """Return where a value differs from the one before."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def _before(values: FloatArray, new_key: BoolArray, new_run: BoolArray) -> FloatArray:
    """Return the sum of a key's values before the current run."""
    total = np.cumsum(values) - values
    run_first = np.flatnonzero(new_run)[np.cumsum(new_run) - 1]
    key_first = np.flatnonzero(new_key)[np.cumsum(new_key) - 1]
    return total[run_first] - total[key_first]
