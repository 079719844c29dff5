"""Crosses of two facts as numbers of a vocabulary, for a wide part that memorises pairs.

A candidate is crossed with what its user engaged with in the two requests before (item with item,
tag with tag) and with the hour. A deep model has to find such pairs through its embeddings; a
table of weights can simply remember them. Only pairs that occurred several times in the train
split are remembered, and pairs of items only if they meet more often than by chance: most occur
once or twice, and a weight for each would be noise.
"""

from dataclasses import dataclass

import numpy as np

from ml.features import FeatureSpec, IntArray, SequenceData, merged_requests
from ml.item_table import ItemTable

# Shapes: E events, G requests, K remembered events of a request, X crosses of an event.
REMEMBERED_EVENTS = 6
LEAST_COUNT, LEAST_LIFT = 3, 3.0
_ITEMS = 3  # place of the kind that crosses items
NO_KEY = np.iinfo(np.int64).max
CROSSES_OF_KINDS = (1, *[REMEMBERED_EVENTS] * 3)
NUM_CROSSES = sum(CROSSES_OF_KINDS)
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
        int64 [E, X], hashes of 63 bits: tag and hour, tag and tags of the last request and of
        the one before, item and item of the last request.

    Source: OUR CHOICE after wide and deep ranking (arXiv 1606.07792).
    """
    pairs = _pairs(data, items=items, spec=spec)
    columns = [_hashed(kind, *pair) for kind, pair in enumerate(pairs)]
    return np.concatenate(columns, axis=1)


def cross_vocabulary(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec, size: int
) -> IntArray:
    """Return the keys worth remembering, sorted; int64 [size], filled up with `NO_KEY`.

    A key has occurred `LEAST_COUNT` times, and two items of a key `LEAST_LIFT` times as often as
    their own frequencies would have it: chance meetings of popular items teach nothing.

    Args:
        data: Sequences of the train split.
        items: Facts of the items.
        spec: Names the primary action.
        size: Keys kept at most, the most frequent first.
    """
    keys, counts = [], []
    for kind, pair in enumerate(_pairs(data, items=items, spec=spec)):
        key, count = _frequent(_hashed(kind, *pair), pair, lifted=kind == _ITEMS)
        keys.append(key)
        counts.append(count)
    key, count = np.concatenate(keys), np.concatenate(counts)
    kept = np.sort(key[np.argsort(-count, kind="stable")[:size]])
    return np.concatenate([kept, np.full(size - len(kept), NO_KEY)])


def _pairs(
    data: SequenceData, *, items: ItemTable, spec: FeatureSpec
) -> list[tuple[IntArray, IntArray]]:
    """Return what is crossed with what, [E, 1] with [E, K]; 0 for nothing."""
    item = np.where(data.item <= items.num_items, data.item, 0)
    tag = items.tags[item, 0] if items.tags.shape[1] else np.zeros_like(item)
    past = _remembered(data, labels=data.labels(spec.primary_index))
    last = past.before[past.request]
    earlier = past.before[last]
    return [
        (tag[:, None], data.hour[:, None] + 1),
        (tag[:, None], _once(_facts_at(tag, past.event[last]))),
        (tag[:, None], _once(_facts_at(tag, past.event[earlier]))),
        (item[:, None], _facts_at(item, past.event[last])),
    ]


def _once(facts_EK: IntArray) -> IntArray:
    """Return the facts of each event with repeated ones set to 0."""
    repeated = [
        (facts_EK[:, :k] == facts_EK[:, k : k + 1]).any(axis=1) for k in range(facts_EK.shape[1])
    ]
    return np.where(np.stack(repeated, axis=1), 0, facts_EK)


def _frequent(
    keys_EK: IntArray, pair: tuple[IntArray, IntArray], *, lifted: bool
) -> tuple[IntArray, IntArray]:
    """Return the keys of a kind that are worth remembering, and their counts."""
    there = keys_EK > 0
    key, first, count = np.unique(keys_EK[there], return_index=True, return_counts=True)
    kept = count >= LEAST_COUNT
    if lifted:
        left, right = (np.broadcast_to(side, keys_EK.shape)[there] for side in pair)
        expected = np.bincount(left)[left[first]] * np.bincount(right)[right[first]]
        kept &= count * len(left) >= LEAST_LIFT * expected
    return key[kept], count[kept]


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
