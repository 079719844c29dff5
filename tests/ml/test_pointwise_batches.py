"""Point-wise examples: each target carries the right events of earlier requests."""

import numpy as np

from ml.features import SequenceData
from ml.ranking.pointwise_ranker.batches import PointBatch, PointBatches, PointInputs
from ml.ranking.pointwise_ranker.config import PointBatchConfig
from tests.ml.sequence_examples import changed, expectation, feature_spec, item_table, sequences

# Two users. Requests of the first: (1, 2), (3, 4), (5), (6, 7); of the second: (8), (9, 10).
# Clicked: items 1, 4, 6 and 8.
ITEMS = np.arange(1, 11, dtype=np.int32)
REQUESTS = np.array([0, 0, 1, 1, 2, 3, 3, 0, 1, 1], np.int32)
ACTIONS = np.array([3, 0, 0, 1, 4, 1, 0, 1, 0, 0], np.int32)


def _data() -> SequenceData:
    target = np.ones(10, bool)
    target[:2] = False
    return changed(
        sequences([7, 3]), item=ITEMS, request=REQUESTS, actions=ACTIONS, is_target=target
    )


def _batches(
    *, positives_only: bool = False, targets: int = 100, history_length: int = 3
) -> PointBatches:
    inputs = PointInputs(
        data=_data(), items=item_table(), spec=feature_spec(), expectation=expectation()
    )
    settings = PointBatchConfig(targets=targets, history_length=history_length)
    return PointBatches(inputs, settings, positives_only=positives_only)


def _histories(batch: PointBatch) -> dict[int, list[tuple[int, int]]]:
    """Return (item, requests ago) of each target's history, by the target's item."""
    history = batch.history
    found = {}
    for item, request in zip(batch.item.tolist(), batch.request.tolist(), strict=True):
        valid = history.valid[request]
        pairs = zip(history.item[request][valid], history.age[request][valid], strict=True)
        found[item] = [(int(i), int(age)) for i, age in pairs]
        assert not history.item[request][~valid].any()
        assert not history.actions[request][~valid].any()
        assert not valid[: len(valid) - len(found[item])].any()  # padded on the left
    return found


def test_histories_are_the_last_events_of_earlier_requests_of_the_same_user() -> None:
    assert _histories(next(_batches().once())) == {
        3: [(1, 1), (2, 1)],
        4: [(1, 1), (2, 1)],
        5: [(2, 2), (3, 1), (4, 1)],
        6: [(3, 2), (4, 2), (5, 1)],
        7: [(3, 2), (4, 2), (5, 1)],
        8: [],
        9: [(8, 1)],
        10: [(8, 1)],
    }


def test_histories_of_positives_hold_the_last_clicked_events() -> None:
    found = _histories(next(_batches(positives_only=True).once()))
    assert found == {
        3: [(1, 1)],
        4: [(1, 1)],
        5: [(1, 2), (4, 1)],
        6: [(1, 3), (4, 2)],
        7: [(1, 3), (4, 2)],
        8: [],
        9: [(8, 1)],
        10: [(8, 1)],
    }


def test_outcomes_of_earlier_events_stand_beside_them() -> None:
    batch = next(_batches(history_length=50).once())
    request = int(batch.request[batch.item == 6])
    assert batch.history.actions[request].tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 0],
        [0, 0, 1],
    ]
    dwell = _data().dwell[:5]
    assert batch.history.dwell[request].tolist() == dwell.tolist()
    assert batch.actions[batch.item == 8].tolist() == [[1, 0, 0]]


def test_every_target_comes_once_in_order_of_its_place_and_requests_stay_together() -> None:
    for batches in (_batches(targets=2).once(), _batches(targets=2).epoch(3)):
        items, places = [], []
        for batch in batches:
            items += batch.item.tolist()
            places += batch.place.tolist()
            for pair in ((3, 4), (6, 7), (9, 10)):
                assert len({item in batch.item for item in pair}) == 1
        assert sorted(places) == list(range(8))
        assert [ITEMS[2:][place] for place in places] == items


def test_epochs_differ_and_repeat_and_workers_share_them() -> None:
    batches = _batches(targets=2)
    assert batches.num_batches() == 4
    first, again, second = ([batch.item.tolist() for batch in batches.epoch(n)] for n in (0, 0, 1))
    assert first == again
    assert first != second


def test_hidden_items_are_a_share_of_the_shown_and_the_earlier_ones() -> None:
    inputs = PointInputs(
        data=sequences([60] * 20),
        items=item_table(),
        spec=feature_spec(),
        expectation=expectation(),
    )
    config = PointBatchConfig(targets=10_000, history_length=50, item_dropout_fraction=0.25)
    batches = PointBatches(inputs, config)
    shown, hidden = next(batches.once()), next(batches.epoch(0))
    assert (shown.item > 0).all()
    earlier = hidden.history.item[hidden.history.valid]
    for share in ((hidden.item == 0).float().mean(), (earlier == 0).float().mean()):
        assert 0.2 < float(share) < 0.3
