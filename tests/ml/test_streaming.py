"""Streamed batches: each event once, disjoint chunks, fixed steps, little held at a time."""

import threading
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch

from ml.batches import Batch, BatchConfig, SequenceBatches, Shard
from ml.features import IntArray, SequenceData
from ml.ranking.crosses import cross_keys
from ml.ranking.numeric_features import numeric_features
from ml.row_chunks import StreamConfig
from ml.stream_plan import StreamPlan
from ml.streaming import StreamedBatches, joined
from tests.ml.memory_chunks import MemoryChunks, chunks_of
from tests.ml.sequence_examples import changed, expectation, feature_spec, item_table, sequences

EPOCHS = 3


def _uneven(num_chunks: int = 7, seed: int = 0) -> MemoryChunks:
    rng = np.random.default_rng(seed)
    return chunks_of(
        *(rng.integers(1, 12, int(rng.integers(3, 20))).tolist() for _ in range(num_chunks))
    )


def _streamed(
    rows: MemoryChunks, *, events: int = 24, hidden: float = 0.0, **stream: int
) -> StreamedBatches:
    config = BatchConfig(events=events, seed=5, item_dropout_fraction=hidden)
    return StreamedBatches(
        rows,
        prepare=lambda data: SequenceBatches(data, spec=feature_spec(), config=config),
        config=config,
        stream=StreamConfig(**{"shuffle_chunks": 2} | stream),
        epochs=EPOCHS,
    )


def _shares(batches: StreamedBatches, number: int, size: int) -> list[list[Batch | None]]:
    return [list(batches.epoch(number, shard=Shard(rank=r, size=size))) for r in range(size)]


def _counted(batches: list[Batch | None], rows: MemoryChunks) -> Counter[tuple[int, int]]:
    """Count (row, step) and check that each event is the one that the row has there."""
    whole, seen = joined(rows.parts), Counter()
    for batch in batches:
        if batch is None:
            continue
        places, steps = np.nonzero(batch.target.numpy())
        row = batch.row.numpy()[places]
        assert np.array_equal(
            batch.item.numpy()[places, steps], whole.item[whole.offsets[row] + steps]
        )
        seen.update(zip(row.tolist(), steps.tolist(), strict=True))
    return seen


@pytest.mark.parametrize("number", [*range(EPOCHS), EPOCHS, 4 * EPOCHS + 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_event_of_an_epoch_comes_once_over_all_workers(size: int, number: int) -> None:
    rows = _uneven()
    shares = _shares(batches := _streamed(rows), number, size)
    every = {
        (row, step): 1 for row, n in enumerate(joined(rows.parts).lengths) for step in range(n)
    }
    assert _counted([batch for share in shares for batch in share], rows) == every
    assert {len(share) for share in shares} == {batches.num_batches(size=size)}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_workers_read_each_chunk_once_and_none_of_anothers(size: int) -> None:
    read = []
    for rank in range(size):
        rows = _uneven()
        list(_streamed(rows).epoch(1, shard=Shard(rank=rank, size=size)))
        read.append(rows.reads)
    assert sorted(chunk for chunks in read for chunk in chunks) == list(range(7))
    assert all(read)


def test_epochs_are_reproducible_and_differ() -> None:
    def items(number: int) -> list[list[int]]:
        return [b.item.flatten().tolist() for b in _streamed(_uneven(), hidden=0.3).epoch(number)]

    assert items(0) == items(0)
    assert items(0) != items(1)
    # Past the planned epochs the same chunks meet, but no epoch is given twice.
    assert items(EPOCHS) == items(EPOCHS)
    assert len({str(items(number)) for number in range(3 * EPOCHS)}) == 3 * EPOCHS


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_workers_makes_the_same_steps(size: int) -> None:
    def steps(size: int) -> list[list[tuple[list[int], list[int]]]]:
        batches = _streamed(_uneven(), hidden=0.3)
        shards = [Shard(rank=r, size=size, batches_per_step=4) for r in range(size)]
        shares = [list(batches.epoch(2, shard=shard)) for shard in shards]
        turns = -(-4 // size)
        assert {len(share) for share in shares} == {batches.num_steps(4) * turns}
        found = []
        for step in range(batches.num_steps(4)):
            own = [share[step * turns : (step + 1) * turns] for share in shares]
            of_step = [batch for turn in zip(*own, strict=True) for batch in turn if batch]
            found.append([(b.row.tolist(), b.item.flatten().tolist()) for b in of_step])
        return found

    assert steps(size) == steps(4)


def test_rows_of_several_chunks_meet_in_batches_that_keep_to_their_size() -> None:
    rows = _uneven()
    first_row = np.cumsum([0, *(part.num_rows for part in rows.parts)])
    met = Counter()
    for batch in _streamed(rows).epoch(0):
        assert batch.item.numel() <= 24
        chunks = np.searchsorted(first_row, batch.row.numpy(), side="right")
        met[len(set(chunks.tolist()))] += 1
    assert set(met) == {1, 2}
    assert met[2] > met[1]


def test_one_group_is_cut_as_the_same_rows_in_memory() -> None:
    rows = chunks_of([3, 8, 5, 9], [2, 2, 7, 11, 4])
    config = BatchConfig(events=24)
    whole = SequenceBatches(joined(rows.parts), spec=feature_spec(), config=config)
    expected = sorted(tuple(batch.item.shape) for batch in whole.epoch(0))
    assert sorted(tuple(batch.item.shape) for batch in _streamed(rows).epoch(0)) == expected


def test_chunks_go_to_the_lane_of_fewest_events() -> None:
    # 30, 10, 10 and 10 events: dealt first or second, the large one leaves all others to the
    # other lane; dealt later, it shares a lane with one that came before.
    parts = chunks_of([10] * 3, [10], [10], [10]).parts
    beside_the_large = set()
    for number in range(EPOCHS):
        reads = []
        for rank in (0, 1):
            own = MemoryChunks(parts)
            list(_streamed(own, events=10).epoch(number, shard=Shard(rank=rank, size=2)))
            reads.append(own.reads)
        assert sorted(reads[0] + reads[1]) == [0, 1, 2, 3]
        beside_the_large |= {len(chunks) - 1 for chunks in reads if 0 in chunks}
    assert beside_the_large == {0, 1}


def test_a_lane_of_fewer_batches_halves_its_own_instead_of_idling() -> None:
    # One lane has three batches of one row of 10, the other one batch of 4 rows of 2.
    batches = _streamed(chunks_of([10] * 3, [2] * 4), events=10)
    assert batches.num_batches(size=2) == 3
    sizes = [sorted(len(b.row) if b else 0 for b in share) for share in _shares(batches, 0, 2)]
    assert sorted(sizes) == [[1, 1, 1], [1, 1, 2]]


def test_a_lane_of_fewer_rows_than_steps_ends_with_none() -> None:
    batches = _streamed(chunks_of([10] * 3, [2]), events=10)
    shares = _shares(batches, 0, 2)
    assert sorted([batch is None for batch in share] for share in shares) == [
        [False, False, False],
        [False, True, True],
    ]


def test_all_planned_epochs_have_the_same_number_of_steps() -> None:
    batches = _streamed(_uneven(9, seed=3), shuffle_chunks=3)
    counts = [len(list(batches.epoch(number))) for number in range(EPOCHS)]
    assert counts == [batches.num_batches()] * EPOCHS


def test_rows_without_targets_are_left_out() -> None:
    rows = chunks_of([3, 3], [4])
    blank = changed(rows.parts[0], is_target=np.array([False] * 3 + [True] * 3))
    empty = changed(sequences([5]), is_target=np.zeros(5, bool))
    kept = MemoryChunks([blank, empty, rows.parts[1]])
    found = [row for batch in _streamed(kept).epoch(0) for row in batch.row.tolist()]
    assert sorted(found) == [1, 3]
    assert 1 not in kept.reads
    with pytest.raises(ValueError, match="no row of the split has a target"):
        _streamed(MemoryChunks([empty]))


def test_more_workers_than_chunks_are_refused() -> None:
    batches = _streamed(_uneven(2))
    with pytest.raises(ValueError, match="2 chunks with a target cannot be shared by 3 workers"):
        batches.num_batches(size=3)


def test_a_chunk_that_is_not_as_planned_is_refused() -> None:
    class Changed(MemoryChunks):
        def read(self, chunk: int) -> SequenceData:
            data = super().read(chunk)
            return changed(data, is_target=np.zeros(data.num_events, bool))

    with pytest.raises(ValueError, match="other events or targets than the table says"):
        next(_streamed(Changed(_uneven().parts)).epoch(0))


def test_the_probe_is_the_same_for_all_and_reads_one_chunk() -> None:
    rows = _uneven()
    batches = _streamed(rows)
    probes = [batches.probe(number) for number in (0, 1, 0)]
    assert torch.equal(probes[0].item, probes[2].item)
    assert not torch.equal(probes[0].row, probes[1].row)
    assert len(rows.reads) == 3
    _counted(list(probes), rows)


@pytest.mark.parametrize("groups_ahead", [0, 1, 2])
def test_no_more_chunks_are_held_than_stated(groups_ahead: int) -> None:
    # A group of one chunk is that chunk: what is held of it is held.
    rows = _uneven(12)
    streamed = _streamed(rows, shuffle_chunks=1, groups_ahead=groups_ahead)
    for _ in streamed.epoch(0):
        time.sleep(0.002)  # lets the thread run ahead as far as it may
    assert len(rows.reads) == 12
    assert rows.most_alive <= 1 + groups_ahead


def test_chunks_are_let_go_once_their_group_is_joined() -> None:
    rows = _uneven(12)
    for _ in _streamed(rows, shuffle_chunks=3, groups_ahead=0).epoch(0):
        pass
    assert rows.most_alive == 3


def _peak_bytes(num_chunks: int, *, groups_ahead: int) -> int:
    rows = MemoryChunks([sequences([40] * 100, seed=seed) for seed in range(num_chunks)])
    batches = _streamed(rows, events=400, groups_ahead=groups_ahead)
    tracemalloc.start()
    for _ in batches.epoch(0):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_number_of_chunks() -> None:
    one_group = _peak_bytes(2, groups_ahead=0)
    assert _peak_bytes(24, groups_ahead=0) < 1.3 * one_group
    all_rows = 24 * _bytes(sequences([40] * 100))
    for groups_ahead in (0, 1):
        assert _peak_bytes(24, groups_ahead=groups_ahead) < all_rows / 2


@pytest.mark.parametrize("groups_ahead", [0, 1, 3])
def test_reading_ahead_changes_no_batch(groups_ahead: int) -> None:
    def items(groups_ahead: int) -> list[list[int]]:
        batches = _streamed(_uneven(), hidden=0.3, groups_ahead=groups_ahead)
        return [batch.item.flatten().tolist() for batch in batches.epoch(0)]

    assert items(groups_ahead) == items(0)


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    batches = _streamed(_uneven(12)).epoch(0, shard=Shard(batches_per_step=3))
    next(batches)
    assert _prefetching()
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not _prefetching()


def _prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def _bytes(data: SequenceData) -> int:
    return sum(getattr(data, name).nbytes for name in data.__slots__)


def test_steps_are_counted_without_cutting() -> None:
    rows = _uneven(9)
    plan = StreamPlan(
        [part.lengths for part in rows.parts],
        [part.lengths for part in rows.parts],
        config=BatchConfig(events=24),
        shuffle_chunks=2,
        epochs=1,
    )
    lanes = [plan.lane(0, lane=lane, lanes=2) for lane in (0, 1)]
    cuts = [
        sum(len(plan.cuts(group, np.random.default_rng(0))) for group in lane.groups)
        for lane in lanes
    ]
    assert plan.num_steps(2) == max(cuts)


def test_a_group_is_cut_when_it_is_reached() -> None:
    class Counted(StreamPlan):
        reached = 0

        def cuts(self, group: list[int], generator: np.random.Generator) -> list[IntArray]:
            self.reached += 1
            return super().cuts(group, generator)

    lengths = [part.lengths for part in _uneven(9).parts]
    plan = Counted(lengths, lengths, config=BatchConfig(events=24), shuffle_chunks=2, epochs=1)
    lane = plan.lane(0, lane=0, lanes=1)
    assert len(lane.groups) == 5
    groups = [batch.group for batch in lane.batches if batch and plan.reached == batch.group + 1]
    assert len(groups) == plan.num_steps(1)


def test_a_plan_copies_neither_lengths_nor_targets() -> None:
    rng = np.random.default_rng(0)
    lengths = [rng.integers(1, 40, 10_000).astype(np.int32) for _ in range(30)]
    tracemalloc.start()
    plan = StreamPlan(lengths, lengths, config=BatchConfig(), shuffle_chunks=4, epochs=2)
    plan.num_steps(2)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 0.1 * 300_000


def test_numbers_and_crosses_of_a_row_do_not_depend_on_the_others() -> None:
    rows = _uneven()
    facts = {"items": item_table(), "spec": feature_spec()}
    parts = [numeric_features(p, **facts, expectation=expectation()) for p in rows.parts]
    whole = numeric_features(joined(rows.parts), **facts, expectation=expectation())
    # Sums over the past are differences of running sums, whose last bits the rows before move.
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
    keys = [cross_keys(part, **facts) for part in rows.parts]
    assert np.array_equal(np.concatenate(keys), cross_keys(joined(rows.parts), **facts))


def test_joined_rows_keep_their_order_and_events() -> None:
    data = sequences([3, 5, 2])
    parts = [data.take(np.array(rows)) for rows in ([0], [1, 2])]
    again = joined(parts)
    for name in data.__slots__:
        assert np.array_equal(getattr(again, name), getattr(data, name)), name
    with pytest.raises(ValueError, match="nothing to join"):
        joined([])
