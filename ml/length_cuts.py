"""Cut rows of similar length into batches that keep to a number of padded events."""

import heapq

import numpy as np

from ml.features import IntArray

# Shapes: N rows, G sets of rows, L lengths.


def cut_by_length(rows: IntArray, lengths: IntArray, *, events: int) -> list[IntArray]:
    """Group rows of similar length so that each group, padded to its longest, keeps to a size.

    No other grouping needs fewer groups: deal the sorted rows, longest first, to another's groups,
    widest first; each gets as many rows as it had, none of them wider than its widest was.

    Args:
        rows: Numbers of the rows; among equally long ones their order is kept, [N].
        lengths: Events of each of them, at least 1, [N].
        events: Padded events of a group at most; a longer row is a group of its own.
    """
    order = np.argsort(lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    cuts, start = [], 0
    while start < len(rows):
        window = lengths[start : start + events]
        too_wide = window * np.arange(1, len(window) + 1) > events
        count = int(np.argmax(too_wide)) if too_wide.any() else len(window)
        cuts.append(rows[start : start + max(1, count)])
        start += max(1, count)
    return cuts


def num_cuts(histograms_GL: IntArray, *, events: int) -> IntArray:
    """Return how many groups `cut_by_length` makes of each set of rows, whatever their order.

    Args:
        histograms_GL: How many rows of each set have each length, from 0 events on; [G, L].
        events: Padded events of a group at most.

    Returns:
        int64 [G].
    """
    closed = np.zeros(len(histograms_GL), np.int64)
    in_open = np.zeros(len(histograms_GL), np.int64)
    for length in range(1, histograms_GL.shape[1]):
        most, left = max(1, events // length), histograms_GL[:, length].astype(np.int64)
        taken = np.where(in_open > 0, np.clip(most - in_open, 0, left), 0)
        in_open, left = in_open + taken, left - taken
        opens = left > 0
        closed += np.where(opens, (in_open > 0) + (left - 1) // most, 0)
        in_open = np.where(opens, (left - 1) % most + 1, in_open)
    return closed + (in_open > 0)


def halved_until(groups: list[IntArray], count: int) -> list[tuple[int, IntArray]]:
    """Halve the groups of most rows until there are as many as asked for, or one for each row.

    Args:
        groups: Row numbers of each group.
        count: How many groups there shall be; more than that are left as they are.

    Returns:
        Each part with the place of the group that it comes from, in the order of the groups.
    """
    parts = [(-len(rows), place, 0, rows) for place, rows in enumerate(groups)]
    heapq.heapify(parts)
    while len(parts) < count and parts and len(parts[0][3]) > 1:
        _, place, start, rows = parts[0]
        half = (len(rows) + 1) // 2
        heapq.heapreplace(parts, (-half, place, start, rows[:half]))
        heapq.heappush(parts, (half - len(rows), place, start + half, rows[half:]))
    parts.sort(key=lambda part: part[1:3])
    return [(place, rows) for _, place, _, rows in parts]
