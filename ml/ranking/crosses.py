"""Crosses of two facts as hashed numbers, for a wide part that memorises pairs.

A candidate is crossed with what its user engaged with in the two requests before (item with item,
tag with tag) and with the hour. A deep model has to find such pairs through its embeddings; a
table of weights can simply remember them.
"""

from dataclasses import dataclass

import numpy as np

from ml.features import FeatureSpec, IntArray, SequenceData, merged_requests
from ml.item_table import ItemTable

# Shapes: E events, G requests, K remembered events of a request, X crosses of an event.
REMEMBERED_EVENTS = 6
NUM_CROSSES = 1 + 3 * REMEMBERED_EVENTS
_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_KIND_MULTIPLIERS = (
    np.uint64(0x165667B19E3779F9),
    np.uint64(0x85EBCA77C2B2AE63),
    np.uint64(0x27D4EB2F165667C5),
    np.uint64(0xD6E8FEB86659FD93),
)
_SHIFT = np.uint64(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Remembered:
    """Hold the events with the primary action of each request, [G + 1, K]; the last is empty.

    Attributes:
        event: Event of each place, -1 for none.
        request: Request of each event, [E].
        before: Request of the same user before each request, G for none.
    """

    event: IntArray
    request: IntArray
    before: IntArray


def crosses(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, buckets: int = 1 << 16
) -> IntArray:
    """Return the hashed crosses of every event, 0 where there is none.

    Args:
        data: Sequences.
        items: Facts of the items; an item's first tag is crossed.
        spec: Names the primary action.
        buckets: Number of hash buckets; different crosses may share one.

    Returns:
        int32 [E, X], numbers from 1 to `buckets`: tag and hour, item and item of the last
        request, tag and tag of the last request and of the one before.

    Source: OUR CHOICE after wide and deep ranking (arXiv 1606.07792).
    """
    item = np.where(data.item <= items.num_items, data.item, 0)
    tag = items.tags[item, 0] if items.tags.shape[1] else np.zeros_like(item)
    past = _remembered(data, labels=data.labels(spec.primary_index))
    last = past.before[past.request]
    earlier = past.before[last]
    columns = [
        _hashed(0, tag[:, None], data.hour[:, None] + 1, buckets=buckets),
        _hashed(1, item[:, None], _facts_at(item, past.event[last]), buckets=buckets),
        _hashed(2, tag[:, None], _facts_at(tag, past.event[last]), buckets=buckets),
        _hashed(3, tag[:, None], _facts_at(tag, past.event[earlier]), buckets=buckets),
    ]
    return np.concatenate(columns, axis=1)


def _facts_at(facts: IntArray, event: IntArray) -> IntArray:
    """Return the facts of events, 0 where there is no event."""
    return np.where(event >= 0, facts[event], 0)


def _remembered(data: SequenceData, *, labels: IntArray) -> _Remembered:
    """Collect the first positive events of each request."""
    request = merged_requests(data) - 1
    num_requests = int(request[-1]) + 1 if len(request) else 0
    positive = np.flatnonzero(labels)
    place = np.arange(len(positive)) - np.searchsorted(request[positive], request[positive])
    kept = place < REMEMBERED_EVENTS
    event = np.full((num_requests + 1, REMEMBERED_EVENTS), -1)
    event[request[positive[kept]], place[kept]] = positive[kept]
    first = np.searchsorted(request, np.arange(num_requests))
    row = data.event_row[first]
    has_before = np.concatenate([[False], row[1:] == row[:-1]])[:num_requests]
    before = np.where(has_before, np.arange(num_requests) - 1, num_requests)
    return _Remembered(event=event, request=request, before=np.append(before, num_requests))


def _hashed(kind: int, left: IntArray, right: IntArray, *, buckets: int) -> IntArray:
    """Return 1 + a hash of each pair modulo the buckets, 0 where either is 0."""
    mixed = left.astype(np.uint64) * _MULTIPLIERS[0]
    mixed = (mixed ^ (mixed >> _SHIFT)) + right.astype(np.uint64) * _MULTIPLIERS[1]
    mixed = (mixed ^ (mixed >> _SHIFT)) * _KIND_MULTIPLIERS[kind]
    number = ((mixed ^ (mixed >> _SHIFT)) % np.uint64(buckets)).astype(np.int32) + 1
    return np.where((left > 0) & (right > 0), number, 0).astype(np.int32)
