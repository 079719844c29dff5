"""Crosses: a candidate meets what its user engaged with in the two requests before."""

import numpy as np

from ml.ranking.crosses import (
    NO_KEY,
    NUM_CROSSES,
    REMEMBERED_EVENTS,
    cross_keys,
    cross_numbers,
    cross_vocabulary,
)
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences

LAST_ITEMS = slice(1, 1 + REMEMBERED_EVENTS)
LAST_TAGS = slice(1 + REMEMBERED_EVENTS, 1 + 2 * REMEMBERED_EVENTS)
EARLIER_TAGS = slice(1 + 2 * REMEMBERED_EVENTS, NUM_CROSSES)


def _crosses(actions: list[int], item: list[int]) -> np.ndarray:
    data = sequences([len(item)], request_size=2)
    data = changed(data, actions=np.array(actions, np.int32), item=np.array(item, np.int32))
    return cross_keys(data, items=item_table(), spec=feature_spec())


def test_only_engaged_events_of_the_request_before_are_crossed() -> None:
    # Requests of two events; bit 0 is the primary action. In the first, item 5 was clicked.
    found = _crosses([1, 2, 0, 0, 0, 0], [5, 6, 7, 8, 9, 7])
    assert (found[:2, 1:] == 0).all()
    assert (found[2:4, LAST_ITEMS] > 0).sum(axis=1).tolist() == [1, 1]
    assert found[2, 1] != found[3, 1]
    assert (found[4:, LAST_ITEMS] == 0).all()
    assert (found[4:, EARLIER_TAGS] > 0).sum(axis=1).tolist() == [1, 1]
    assert (found[2:4, EARLIER_TAGS] == 0).all()


def test_equal_pairs_have_equal_numbers_and_order_matters() -> None:
    found = _crosses([1, 0, 1, 0, 0, 0], [5, 6, 7, 6, 5, 7])
    again = _crosses([0, 0, 1, 0, 0, 0], [9, 9, 5, 9, 7, 9])
    assert found[2, 1] == again[4, 1]  # 7 after 5
    assert found[4, 1] != found[2, 1]  # 5 after 7


def test_the_past_of_another_user_is_not_crossed() -> None:
    data = sequences([2, 2], request_size=2)
    data = changed(data, actions=np.ones(4, np.int32))
    assert (cross_keys(data, items=item_table(), spec=feature_spec())[:, 1:] == 0).all()


def test_an_unknown_hour_or_a_missing_tag_makes_no_cross() -> None:
    data = sequences([2])
    undated = changed(data, hour=np.array([-1, 3], np.int32), item=np.array([5, 0], np.int32))
    assert (cross_keys(undated, items=item_table(), spec=feature_spec())[:, 0] == 0).all()


def test_a_vocabulary_keeps_frequent_keys_only() -> None:
    keys = np.array([[7, 0], [7, 5], [7, 5], [9, 5], [9, 2], [0, 9]])
    assert cross_vocabulary(keys, size=4, least=3).tolist() == [5, 7, 9, NO_KEY]
    assert cross_vocabulary(np.vstack([keys, [[7, 9]]]), size=2, least=3).tolist() == [7, 9]


def test_numbers_are_places_and_unknown_keys_have_none() -> None:
    vocabulary = np.array([5, 7, NO_KEY])
    assert cross_numbers(np.array([[7, 0], [6, 5]]), vocabulary).tolist() == [[2, 0], [0, 1]]
