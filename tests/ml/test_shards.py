"""Workers share an epoch: nothing skipped, nothing repeated, the same steps for any number."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from ml.batches import Batch, BatchConfig, SequenceBatches, Shard, step_places
from ml.generative.prompt_ranker.batches import (
    RankingBatchConfig,
    RankingBatches,
    RankingExamples,
)
from ml.length_cuts import cut_by_length, halved_until, num_cuts
from ml.ranking.pointwise_ranker.batches import PointBatches, PointInputs
from ml.ranking.pointwise_ranker.config import PointBatchConfig
from ml.tokenizers.prompt_tokenizer import TokenRows
from tests.ml.sequence_examples import expectation, feature_spec, item_table, sequences

LENGTHS = [4, 9, 1, 7, 3, 9, 2, 5, 8, 6, 4, 4, 1, 2]


def _batches(lengths: list[int] = LENGTHS, **config: float) -> SequenceBatches:
    settings = replace(BatchConfig(events=20), **config)
    return SequenceBatches(sequences(lengths), spec=feature_spec(), config=settings)


def test_each_worker_has_every_size_th_batch_and_none_where_there_is_none() -> None:
    assert step_places(5, Shard()) == [0, 1, 2, 3, 4]
    assert step_places(5, Shard(rank=0, size=2)) == [0, 2, 4]
    assert step_places(5, Shard(rank=1, size=2)) == [1, 3, None]
    assert step_places(0, Shard(rank=1, size=2)) == []
    assert step_places(2, Shard(rank=3, size=4)) == [None]


def test_fewer_workers_do_several_batches_of_a_step() -> None:
    # Steps of 4 batches: (0 1 2 3) (4 5 6 7) (8 9).
    def places(rank: int, size: int) -> list[int | None]:
        return step_places(10, Shard(rank=rank, size=size, batches_per_step=4))

    assert places(0, 1) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, None, None]
    assert places(1, 2) == [1, 3, 5, 7, 9, None]
    assert places(0, 3) == [0, 3, 4, 7, 8, None]
    assert places(1, 3) == [1, None, 5, None, 9, None]
    assert places(2, 3) == [2, None, 6, None, None, None]
    assert places(3, 4) == [3, 7, None]
    assert places(4, 5) == [None, None, None]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 2, "size": 2}, r"rank must be in \[0, 2\), got 2"),
        ({"batches_per_step": 0}, "batches_per_step must be at least 1, got 0"),
    ],
)
def test_a_shard_that_is_none_is_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shard(**fields)


def _event_counts(batches: SequenceBatches, size: int) -> Counter[tuple[int, int]]:
    seen: Counter[tuple[int, int]] = Counter()
    for rank in range(size):
        for batch in batches.epoch(3, shard=Shard(rank=rank, size=size)):
            if batch is not None:
                rows, steps = np.nonzero(batch.target.numpy())
                seen.update(zip(batch.row.numpy()[rows].tolist(), steps.tolist(), strict=True))
    return seen


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_event_of_an_epoch_comes_once_over_all_workers(size: int) -> None:
    expected = {(row, step): 1 for row, length in enumerate(LENGTHS) for step in range(length)}
    assert _event_counts(_batches(), size) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_workers_makes_the_same_steps(size: int) -> None:
    batches = _batches(item_dropout_fraction=0.3)
    alone = list(batches.epoch(1))
    shares = [
        list(batches.epoch(1, shard=Shard(rank=rank, size=size, batches_per_step=4)))
        for rank in range(size)
    ]
    per_step = -(-4 // size)
    assert {len(share) for share in shares} == {batches.num_steps(4) * per_step}
    for step in range(batches.num_steps(4)):
        own = [share[step * per_step : (step + 1) * per_step] for share in shares]
        found = [batch for turn in zip(*own, strict=True) for batch in turn if batch is not None]
        expected = alone[4 * step : 4 * step + 4]
        assert [b.row.tolist() for b in found] == [b.row.tolist() for b in expected]
        assert all(torch.equal(a.item, b.item) for a, b in zip(found, expected, strict=True))


def test_the_probe_is_a_batch_of_its_own_and_the_same_again() -> None:
    batches = _batches([5] * 40)
    probes: list[Batch] = [batches.probe(number) for number in (0, 1, 0)]
    assert torch.equal(probes[0].row, probes[2].row)
    assert not torch.equal(probes[0].row, probes[1].row)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_target_of_the_pointwise_ranker_comes_once_over_all_workers(size: int) -> None:
    inputs = PointInputs(
        data=sequences(LENGTHS), items=item_table(), spec=feature_spec(), expectation=expectation()
    )
    batches = PointBatches(inputs, PointBatchConfig(targets=9))
    shares = [list(batches.epoch(2, shard=Shard(rank=r, size=size))) for r in range(size)]
    assert {len(share) for share in shares} == {batches.num_batches(size=size)}
    places = [p for share in shares for b in share if b is not None for p in b.place.tolist()]
    assert sorted(places) == list(range(sum(LENGTHS)))


@pytest.mark.parametrize("examples", [2, 5, 101])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_prompt_comes_once_over_all_workers(size: int, examples: int) -> None:
    number = np.arange(examples, dtype=np.int64)
    tokens = TokenRows(ids=number[:, None].astype(np.int32), lengths=np.ones(examples, np.int32))
    ranking = RankingExamples(tokens=tokens, label=number, user=number, item=number, day=number)
    batches = RankingBatches(ranking, config=RankingBatchConfig(prompts=4))
    shares = [list(batches.epoch(2, shard=Shard(rank=r, size=size))) for r in range(size)]
    assert {len(share) for share in shares} == {batches.num_batches(size=size)}
    seen = [p for share in shares for b in share if b is not None for p in b["labels"].tolist()]
    assert sorted(seen) == list(range(examples))


def test_rows_of_similar_length_share_a_cut_that_keeps_to_its_size() -> None:
    lengths = np.array([3, 1, 9, 3, 2, 1])
    cuts = cut_by_length(np.array([10, 11, 12, 13, 14, 15]), lengths, events=6)
    assert [cut.tolist() for cut in cuts] == [[11, 15, 14], [10, 13], [12]]


@pytest.mark.parametrize("events", [1, 7, 40, 300])
def test_cuts_are_counted_from_how_many_rows_have_each_length(events: int) -> None:
    rng = np.random.default_rng(events)
    sets = [rng.integers(1, 30, count) for count in (1, 2, 10, 200)]
    cuts = [cut_by_length(np.arange(len(rows)), rows, events=events) for rows in sets]
    histograms = np.stack([np.bincount(rows, minlength=30) for rows in [*sets, sets[0][:0]]])
    assert num_cuts(histograms, events=events).tolist() == [*map(len, cuts), 0]


def test_the_largest_groups_are_halved_first_and_no_row_is_lost() -> None:
    groups = [np.array([5, 6, 7]), np.array([1]), np.array([2, 3])]

    def halved(count: int) -> list[tuple[int, list[int]]]:
        return [(place, rows.tolist()) for place, rows in halved_until(groups, count)]

    assert halved(2) == [(0, [5, 6, 7]), (1, [1]), (2, [2, 3])]
    assert halved(4) == [(0, [5, 6]), (0, [7]), (1, [1]), (2, [2, 3])]
    assert halved(6) == [(0, [5]), (0, [6]), (0, [7]), (1, [1]), (2, [2]), (2, [3])]
    assert halved(99) == halved(6)
    assert halved_until([], 3) == []
