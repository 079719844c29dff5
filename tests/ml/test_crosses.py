"""Crosses: a candidate meets what its user engaged with in the two requests before."""

import numpy as np

from ml.features import SequenceData
from ml.ranking.crosses import (
    NO_KEY,
    NUM_CROSSES,
    REMEMBERED_EVENTS,
    cross_keys,
    cross_numbers,
    cross_vocabulary,
)
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences

LAST_TAGS = slice(1, 1 + REMEMBERED_EVENTS)
EARLIER_TAGS = slice(1 + REMEMBERED_EVENTS, 1 + 2 * REMEMBERED_EVENTS)
LAST_ITEMS = slice(1 + 2 * REMEMBERED_EVENTS, NUM_CROSSES)


def _crosses(actions: list[int], item: list[int]) -> np.ndarray:
    data = sequences([len(item)], request_size=2)
    data = changed(data, actions=np.array(actions, np.int32), item=np.array(item, np.int32))
    return cross_keys(data, items=item_table(), spec=feature_spec())


def test_only_engaged_events_of_the_request_before_are_crossed() -> None:
    # Requests of two events; bit 0 is the primary action. In the first, item 5 was clicked.
    found = _crosses([1, 2, 0, 0, 0, 0], [5, 6, 7, 8, 9, 7])
    assert (found[:2, 1:] == 0).all()
    assert (found[2:4, LAST_ITEMS] > 0).sum(axis=1).tolist() == [1, 1]
    assert found[2, 13] != found[3, 13]
    assert (found[4:, LAST_ITEMS] == 0).all()
    assert (found[4:, EARLIER_TAGS] > 0).sum(axis=1).tolist() == [1, 1]
    assert (found[2:4, EARLIER_TAGS] == 0).all()


def test_equal_pairs_have_equal_numbers_and_order_matters() -> None:
    found = _crosses([1, 0, 1, 0, 0, 0], [5, 6, 7, 6, 5, 7])
    again = _crosses([0, 0, 1, 0, 0, 0], [9, 9, 5, 9, 7, 9])
    assert found[2, 13] == again[4, 13]  # 7 after 5
    assert found[4, 13] != found[2, 13]  # 5 after 7


def test_the_past_of_another_user_is_not_crossed() -> None:
    data = sequences([2, 2], request_size=2)
    data = changed(data, actions=np.ones(4, np.int32))
    assert (cross_keys(data, items=item_table(), spec=feature_spec())[:, 1:] == 0).all()


def test_an_unknown_hour_or_a_missing_tag_makes_no_cross() -> None:
    data = sequences([2])
    undated = changed(data, hour=np.array([-1, 3], np.int32), item=np.array([5, 0], np.int32))
    assert (cross_keys(undated, items=item_table(), spec=feature_spec())[:, 0] == 0).all()


def _followed(first: list[int], then: list[int]) -> SequenceData:
    """Return users who click an item, and are shown another in their next request."""
    item = np.stack([first, then], axis=1).ravel().astype(np.int32)
    data = sequences([2] * len(first), request_size=1)
    return changed(data, item=item, actions=np.tile([1, 0], len(first)).astype(np.int32))


def test_a_vocabulary_keeps_pairs_of_items_that_meet_more_often_than_by_chance() -> None:
    # 5 then 6 three times, 7 then 8 twice; 9 and 10 are everywhere, and meet as chance has it.
    first = [5] * 3 + [7] * 2 + [9] * 12 + list(range(20, 26))
    then = [6] * 3 + [8] * 2 + [10] * 12 + [10] * 6
    data = _followed(first, then)
    table, spec = item_table(), feature_spec()
    keys = cross_keys(data, items=table, spec=spec)
    vocabulary = cross_vocabulary(data, items=table, spec=spec, size=500)
    known = np.any(cross_numbers(keys, vocabulary)[:, LAST_ITEMS] > 0, axis=1)
    assert known[1:6:2].all()
    assert not known[7:].any()
    assert vocabulary[-1] == NO_KEY


def test_a_full_vocabulary_keeps_the_most_frequent_keys() -> None:
    data = sequences([60, 60])
    table, spec = item_table(), feature_spec()
    all_keys = cross_keys(data, items=table, spec=spec)
    kept = cross_vocabulary(data, items=table, spec=spec, size=5)
    keys, counts = np.unique(all_keys[all_keys > 0], return_counts=True)
    assert counts[np.isin(keys, kept)].min() >= np.sort(counts)[-6]


def test_a_tag_that_was_clicked_twice_is_crossed_once() -> None:
    found = _crosses([1, 1, 0, 0], [5, 5, 7, 8])
    assert (found[2, LAST_TAGS] > 0).sum() == 1
    assert (found[2, LAST_ITEMS] > 0).sum() == 2


def test_numbers_are_places_and_unknown_keys_have_none() -> None:
    vocabulary = np.array([5, 7, NO_KEY])
    assert cross_numbers(np.array([[7, 0], [6, 5]]), vocabulary).tolist() == [[2, 0], [0, 1]]
