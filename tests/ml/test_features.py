"""Sequences from arrow, item tables, and batches that neither lose nor change an event."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ml.batches import (
    CONTEXT_COLUMNS,
    PAD_REQUEST,
    BatchConfig,
    SequenceBatches,
    Shard,
    gap_buckets,
)
from ml.features import EVENT_COLUMNS, NO_TIME, FeatureSpec, SequenceData, merged_requests
from ml.item_table import ItemTable, ItemTableLimits, build_item_table
from ml.item_table import feature_spec as spec_of
from tests.ml.sequence_examples import changed, feature_spec, sequences

TIME = datetime(2024, 5, 1, 12, tzinfo=UTC)


def _sequences_table() -> pa.Table:
    lengths = {("train", 2): 2, ("test", 1): 1, ("train", 1): 3}
    rows = []
    for (split, user), length in lengths.items():
        row = {"split": split, "user_index": user, "chunk": 0}
        for place, column in enumerate(EVENT_COLUMNS.values()):
            row[column] = [100 * user + 10 * step + place % 7 for step in range(length)]
        row["event_time"] = [None, *[TIME] * (length - 1)]
        row["is_target"] = [False] + [True] * (length - 1)
        row["is_shuffled"] = [None] + [True] * (length - 1)
        row["propensity"] = [None] + [0.5] * (length - 1)
        row["true_probability"] = [None] + [0.25] * (length - 1)
        row["reachable_probability"] = [None] * length
        rows.append(row)
    schema = {"split": pa.string(), "user_index": pa.int32(), "chunk": pa.int32()}
    schema |= {column: pa.list_(pa.int32()) for column in EVENT_COLUMNS.values()}
    schema |= {"event_time": pa.list_(pa.timestamp("us", "UTC")), "is_target": pa.list_(pa.bool_())}
    schema |= {"is_shuffled": pa.list_(pa.bool_())}
    doubles = ("propensity", "true_probability", "reachable_probability")
    schema |= {name: pa.list_(pa.float64()) for name in doubles}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(schema.items())))


def test_reads_a_sequences_table_by_split_and_user() -> None:
    data = SequenceData.from_arrow(_sequences_table())
    assert data.user.tolist() == [1, 1, 2]
    assert data.split.tolist() == [2, 0, 0]
    assert data.lengths.tolist() == [1, 3, 2]
    assert data.item.tolist() == [100, 100, 110, 120, 200, 210]
    assert data.request.tolist() == [101, 101, 111, 121, 201, 211]
    assert data.time.tolist() == [NO_TIME, NO_TIME, *[int(TIME.timestamp())] * 2, NO_TIME,
                                  int(TIME.timestamp())]  # fmt: skip
    assert data.is_target.tolist() == [False, False, True, True, False, True]
    assert np.isnan(data.true_probability).tolist() == [True, True, False, False, True, False]
    assert data.session.tolist() == [102, 102, 112, 122, 202, 212]
    assert data.is_shuffled.tolist() == [False, False, True, True, False, True]
    assert str(data.propensity.tolist()) == "[nan, nan, 0.5, 0.5, nan, 0.5]"
    assert data.in_split("train").user.tolist() == [1, 2]


def test_reads_a_table_of_several_chunks() -> None:
    table = _sequences_table()
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    expected, got = SequenceData.from_arrow(table), SequenceData.from_arrow(chunked)
    assert got.item.tolist() == expected.item.tolist()


def test_names_a_missing_column_a_null_and_an_unknown_split() -> None:
    table = _sequences_table()
    with pytest.raises(ValueError, match="no column 'dwell_bucket'"):
        SequenceData.from_arrow(table.drop_columns("dwell_bucket"))
    nulls = pa.array([[1, None], [1], [1, 2, 3]], pa.list_(pa.int32()))
    holed = table.set_column(table.column_names.index("position"), "position", nulls)
    with pytest.raises(ValueError, match="'position' has 1 null"):
        SequenceData.from_arrow(holed)
    dev = table.set_column(0, "split", pa.array(["dev", "test", "train"]))
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        SequenceData.from_arrow(dev)


def test_saved_sequences_come_back(tmp_path: Path) -> None:
    data = sequences([3, 5])
    data.save(tmp_path / "data.npz")
    loaded = SequenceData.load(tmp_path / "data.npz")
    assert loaded.item.tolist() == data.item.tolist()
    assert loaded.offsets.tolist() == [0, 3, 8]


def test_taking_rows_keeps_their_events() -> None:
    data = sequences([3, 5, 2])
    taken = data.take(np.array([2, 0]))
    assert taken.item.tolist() == [*data.item[8:10], *data.item[:3]]
    assert taken.user.tolist() == [3, 1]


def test_columns_of_unequal_length_are_refused() -> None:
    data = sequences([3])
    with pytest.raises(ValueError, match="column item"):
        changed(data, item=data.item[:2])


def test_overlapping_requests_are_merged() -> None:
    data = changed(sequences([8, 2]), request=np.array([0, 0, 2, 1, 2, 3, 4, 4, 4, 9], np.int32))
    assert merged_requests(data).tolist() == [1, 1, 2, 2, 2, 3, 4, 4, 5, 6]


def test_gap_is_measured_from_the_previous_request() -> None:
    data = sequences([4, 2], request_size=2)
    time = np.array([NO_TIME, 100, 107, 108, 500, 500])
    assert gap_buckets(changed(data, time=time)).tolist() == [0, 0, 4, 4, 0, 0]


def _batches(data: SequenceData, **config: Any) -> SequenceBatches:
    return SequenceBatches(data, spec=feature_spec(), config=BatchConfig(**config))


def test_an_epoch_holds_every_event_once_and_right_padded() -> None:
    data = sequences([4, 9, 1, 7, 3, 9], request_size=2)
    seen = []
    for batch in _batches(data, events=20).epoch(0):
        assert batch.item.numel() <= 20
        for place, row in enumerate(batch.row.tolist()):
            start, stop = data.offsets[row], data.offsets[row + 1]
            length = stop - start
            assert batch.item[place, :length].tolist() == data.item[start:stop].tolist()
            assert batch.context[place, :length, 0].tolist() == data.position[start:stop].tolist()
            assert (batch.request[place, length:] == PAD_REQUEST).all()
            assert not batch.target[place, length:].any()
            seen.append(row)
    assert sorted(seen) == list(range(6))


def test_action_bits_and_clock_are_unpacked() -> None:
    data = changed(
        sequences([2]),
        actions=np.array([5, 2], np.int32),
        hour=np.array([-1, 23], np.int32),
    )
    batch = next(_batches(data).once())
    assert batch.actions[0].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert batch.context[0, :, CONTEXT_COLUMNS.index("hour")].tolist() == [0, 24]


def test_values_outside_the_vocabulary_are_unknown() -> None:
    data = changed(
        sequences([2]), item=np.array([41, 40], np.int32), surface=np.array([3, 2], np.int32)
    )
    batch = next(_batches(data).once())
    assert batch.item[0].tolist() == [0, 40]
    assert batch.context[0, :, CONTEXT_COLUMNS.index("surface")].tolist() == [0, 2]


def test_epochs_are_reproducible_and_differ() -> None:
    batches = _batches(sequences([5] * 40), events=20, item_dropout_fraction=0.3)
    first = [batch.item for batch in batches.epoch(0)]
    again = [batch.item for batch in batches.epoch(0)]
    other = [batch.item for batch in batches.epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_item_dropout_hides_about_its_share() -> None:
    batches = _batches(sequences([50] * 40), item_dropout_fraction=0.3)
    items = torch.cat([batch.item.flatten() for batch in batches.epoch(0)])
    assert float((items == 0).float().mean()) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_workers_share_the_batches_evenly(size: int) -> None:
    batches = _batches(sequences([4] * 21), events=12)
    shares = [list(batches.epoch(2, shard=Shard(rank=rank, size=size))) for rank in range(size)]
    assert {len(share) for share in shares} == {batches.num_batches(size=size)}
    rows = [row for share in shares for batch in share if batch for row in batch.row.tolist()]
    assert sorted(rows) == list(range(21))
    once = [
        row
        for rank in range(size)
        for batch in batches.once(shard=Shard(rank=rank, size=size))
        for row in batch.row.tolist()
    ]
    assert sorted(once) == list(range(21))


def test_rows_without_targets_are_left_out() -> None:
    data = sequences([3, 3])
    target = np.array([False] * 3 + [True] * 3)
    rows = [batch.row.tolist() for batch in _batches(changed(data, is_target=target)).once()]
    assert rows == [[1]]


def _items() -> pa.Table:
    return pa.table(
        {
            "item_index": pa.array([3, 1, 2], pa.int32()),
            "tags": pa.array([["b", "a", "zz"], ["a"], None], pa.list_(pa.string())),
            "author_id": pa.array(["x", None, "x"]),
        }
    )


def test_builds_an_item_table_at_the_item_index() -> None:
    ids = pa.table({"item_index": [2, 3], "codes": [[0, 5], [7, 1]]})
    vectors = pa.table({"item_index": [1], "embedding": [[0.5, -1.0]]})
    table = build_item_table(
        _items(),
        semantic_ids=ids,
        embeddings=vectors,
        limits=ItemTableLimits(tags_per_item=2, author_buckets=10),
    )
    assert table.tag_names.tolist() == ["a", "b", "zz"]
    assert table.tags.tolist() == [[0, 0], [1, 0], [0, 0], [2, 1]]
    assert table.codes.tolist() == [[0, 0], [0, 0], [1, 6], [8, 2]]
    assert table.embedding.tolist() == [[0, 0], [0.5, -1.0], [0, 0], [0, 0]]
    assert table.author[2] == table.author[3] > 0
    assert table.author[1] == 0
    assert spec_of(table, actions=("c",), primary_action="c", num_surfaces=2).code_sizes == (9, 7)


def test_a_frozen_vocabulary_keeps_its_numbers() -> None:
    table = build_item_table(_items(), tag_names=np.array(["zz", "b"]))
    assert table.tags.tolist() == [[0] * 4, [0] * 4, [0] * 4, [2, 1, 0, 0]]


def test_item_tables_come_back(tmp_path: Path) -> None:
    table = build_item_table(_items())
    table.save(tmp_path / "items.npz")
    assert ItemTable.load(tmp_path / "items.npz").tags.tolist() == table.tags.tolist()


def test_a_spec_refuses_contradictions() -> None:
    with pytest.raises(ValueError, match="primary action 'x'"):
        FeatureSpec(num_items=1, actions=("a",), primary_action="x")
    with pytest.raises(ValueError, match="num_tags"):
        FeatureSpec(num_items=1, actions=("a",), primary_action="a", num_tags=0)
