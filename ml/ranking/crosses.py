"""Crosses of two facts as numbers of a vocabulary, for a wide part that memorises pairs.

A candidate is crossed with what its user engaged with in the two requests before (item with item,
tag with tag) and with the hour. A deep model has to find such pairs through its embeddings; a
table of weights can simply remember them. Only pairs that occurred several times in the train
split are remembered: most pairs of items occur once, and a weight for each would be noise.
"""

from dataclasses import dataclass

import numpy as np

from ml.features import FeatureSpec, IntArray, SequenceData, merged_requests
from ml.item_table import ItemTable

# Shapes: E events, G requests, K remembered events of a request, X crosses of an event.
REMEMBERED_EVENTS = 6
LEAST_COUNT = 3
NO_KEY = np.iinfo(np.int64).max
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


def cross_keys(data: SequenceData, *, items: ItemTable, spec: FeatureSpec) -> IntArray:
    """Return the key of each cross of every event, 0 where there is none.

    Args:
        data: Sequences.
        items: Facts of the items; an item's first tag is crossed.
        spec: Names the primary action.

    Returns:
        int64 [E, X], hashes of 63 bits: tag and hour, item and item of the last request, tag and
        tag of the last request and of the one before.

    Source: OUR CHOICE after wide and deep ranking (arXiv 1606.07792).
    """
    item = np.where(data.item <= items.num_items, data.item, 0)
    tag = items.tags[item, 0] if items.tags.shape[1] else np.zeros_like(item)
    past = _remembered(data, labels=data.labels(spec.primary_index))
    last = past.before[past.request]
    earlier = past.before[last]
    columns = [
        _hashed(0, tag[:, None], data.hour[:, None] + 1),
        _hashed(1, item[:, None], _facts_at(item, past.event[last])),
        _hashed(2, tag[:, None], _facts_at(tag, past.event[last])),
        _hashed(3, tag[:, None], _facts_at(tag, past.event[earlier])),
    ]
    return np.concatenate(columns, axis=1)


def cross_vocabulary(keys_EX: IntArray, *, size: int, least: int = LEAST_COUNT) -> IntArray:
    """Return the most frequent keys, sorted; int64 [size], the rest filled up with `NO_KEY`.

    Args:
        keys_EX: Keys of the train split's events.
        size: Keys kept at most.
        least: Occurrences that a key needs.
    """
    keys, counts = np.unique(keys_EX[keys_EX > 0], return_counts=True)
    frequent = counts >= least
    keys, counts = keys[frequent], counts[frequent]
    kept = np.sort(keys[np.argsort(-counts, kind="stable")[:size]])
    return np.concatenate([kept, np.full(size - len(kept), NO_KEY)])


def cross_numbers(keys_EX: IntArray, vocabulary: IntArray) -> IntArray:
    """Return the place of each key in a vocabulary, from 1; 0 for unknown and for none.

    Args:
        keys_EX: Keys, [E, X].
        vocabulary: From `cross_vocabulary`.

    Returns:
        int32 [E, X].
    """
    place = np.minimum(np.searchsorted(vocabulary, keys_EX), len(vocabulary) - 1)
    known = (keys_EX > 0) & (vocabulary[place] == keys_EX)
    return np.where(known, place + 1, 0).astype(np.int32)


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


def _hashed(kind: int, left: IntArray, right: IntArray) -> IntArray:
    """Return a positive 63-bit hash of each pair, 0 where either is 0."""
    mixed = left.astype(np.uint64) * _MULTIPLIERS[0]
    mixed = (mixed ^ (mixed >> _SHIFT)) + right.astype(np.uint64) * _MULTIPLIERS[1]
    mixed = (mixed ^ (mixed >> _SHIFT)) * _KIND_MULTIPLIERS[kind]
    number = ((mixed ^ (mixed >> _SHIFT)) >> np.uint64(1)).astype(np.int64)
    return np.where((left > 0) & (right > 0), np.maximum(number, 1), 0)
