"""What a user did before each request, counted for every event without looking at its own request.

Vectorised sums over sequences: for each event, how often its user was shown something of the same
group (an item, a tag, anything) in earlier requests, and how often the action followed.
"""

import numpy as np

from ml.features import BoolArray, FloatArray, IntArray, SequenceData, merged_requests

# Shapes: E events, T groups per event.


class PastSums:
    """Sum any values over earlier events of the same row and group; sorted once, asked often."""

    def __init__(self, data: SequenceData, groups: IntArray) -> None:
        """Sort the events by row and group.

        Args:
            data: Sequences.
            groups: Group numbers of each event, [E] or [E, T]; 0 belongs to no group.
        """
        self._shape = groups.shape
        flat = groups.reshape(-1)
        event = np.repeat(np.arange(data.num_events), flat.size // max(data.num_events, 1))
        row = data.event_row[event]
        key = row.astype(np.int64) * (int(groups.max(initial=0)) + 1) + flat
        self._order = np.argsort(key, kind="stable")
        key, self._event = key[self._order], event[self._order]
        # Within a key the events stay in time order; a run is one key in one request.
        new_key = _starts(key)
        new_run = new_key | _starts(merged_requests(data)[self._event])
        self._key_first = np.flatnonzero(new_key)[np.cumsum(new_key) - 1]
        self._run_first = np.flatnonzero(new_run)[np.cumsum(new_run) - 1]
        self._grouped = flat > 0

    def before(self, values: FloatArray | IntArray) -> FloatArray:
        """Return each event's sum over earlier requests, of the groups' shape.

        Args:
            values: One per event, [E].
        """
        values = values[self._event].astype(np.float64)
        total = np.cumsum(values) - values
        sums = np.zeros(len(values))
        sums[self._order] = total[self._run_first] - total[self._key_first]
        return (sums * self._grouped).reshape(self._shape)


def _starts(values: IntArray) -> BoolArray:
    """Return where a value differs from the one before."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
