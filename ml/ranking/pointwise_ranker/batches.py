"""Cut target events into batches; each carries its user's recent events of earlier requests.

The targets of one request share one history, which is gathered once for all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ml.batches import WHOLE, Shard, context_values, known, step_places
from ml.features import FeatureSpec, IntArray, SequenceData, merged_requests
from ml.item_table import ItemTable
from ml.ranking.expectation import Expectation
from ml.ranking.numeric_features import numeric_features
from ml.ranking.pointwise_ranker.config import PointBatchConfig

# Shapes: N target events, R requests, L earlier events, C context columns, F numbers, A actions.
NUM_AGE_BUCKETS = 16
# What reads a fixed number of the last events finds as many, padded or not.
MIN_HISTORY = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Hold the earlier events of requests, oldest first and padded on the left.

    Requests of short histories come first, so that a part of the batch needs little padding.

    Attributes:
        item: [R, L] Item index, 0 unknown or padding.
        actions: [R, L, A] 0 or 1 per action.
        dwell: [R, L] Dwell bucket.
        age: [R, L] How many of the user's requests ago, clipped below `NUM_AGE_BUCKETS`.
        valid: [R, L] False for padding.
    """

    item: Tensor
    actions: Tensor
    dwell: Tensor
    age: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> "History":
        """Return the history on a device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in fields(self)}
        return History(**moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointBatch:
    """Hold target events of whole requests.

    Attributes:
        item: [N] Item index, 0 if unknown.
        context: [N, C] What is known when the item is shown, in `CONTEXT_COLUMNS` order.
        numbers: [N, F] Numeric features.
        actions: [N, A] 0 or 1 per action; the labels.
        request: [N] Row of the history that each target belongs to.
        place: [N] Place of each target among the data's target events.
        history: The requests' histories.
    """

    item: Tensor
    context: Tensor
    numbers: Tensor
    actions: Tensor
    request: Tensor
    place: Tensor
    history: History

    def to(self, device: torch.device | str) -> "PointBatch":
        """Return the batch on a device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in fields(self)}
        return PointBatch(**moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointInputs:
    """Hold what examples of one split are made from.

    Attributes:
        data: Sequences of the split.
        items: Facts of the items.
        spec: Vocabulary sizes; values beyond them are read as unknown.
        expectation: Fitted on the train split.
    """

    data: SequenceData
    items: ItemTable
    spec: FeatureSpec
    expectation: Expectation


class PointBatches:
    """Cut one split's target events into batches."""

    def __init__(
        self, inputs: PointInputs, config: PointBatchConfig, *, positives_only: bool = False
    ) -> None:
        """Prepare the columns and find each request's history.

        Args:
            inputs: Sequences of one split, items and expectation.
            config: Sizes and seed.
            positives_only: Whether histories hold events with the primary action only.
        """
        data, spec = inputs.data, inputs.spec
        self.data, self._config, self.num_actions = data, config, len(spec.actions)
        self._merged = merged_requests(data)
        self._item = known(data.item, spec.num_items + 1).astype(np.int32)
        self._dwell = known(data.dwell, spec.num_dwell_buckets).astype(np.int32)
        self._context = context_values(data, spec)
        self._numbers = numeric_features(
            data, items=inputs.items, spec=spec, expectation=inputs.expectation
        )
        self._targets = np.flatnonzero(data.is_target)
        request, self._first, self._count = np.unique(
            self._merged[self._targets], return_index=True, return_counts=True
        )
        kept = data.labels(spec.primary_index) > 0 if positives_only else np.ones_like(data.item)
        pool = np.flatnonzero(kept)
        begin = np.searchsorted(self._merged, request)
        row_start = data.offsets[data.event_row[begin]]
        self._end = np.searchsorted(pool, begin)
        start = np.searchsorted(pool, row_start)
        # An event to read, unused, where a history is padded, even if the pool is empty.
        self._pool = np.append(pool, 0)
        self._length = np.minimum(self._end - start, config.history_length)
        self._num_cuts = min(max(1, round(len(self._targets) / config.targets)), len(request))

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return self.num_steps(size)

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        return -(-self._num_cuts // batches_per_step)

    @overload
    def epoch(self, number: int) -> Iterator[PointBatch]: ...
    @overload
    def epoch(self, number: int, *, shard: Shard) -> Iterator[PointBatch | None]: ...
    def epoch(self, number: int, *, shard: Shard = WHOLE) -> Iterator[PointBatch | None]:
        """Yield one worker's shuffled batches of an epoch, each batch for one worker.

        All workers get equally many: one that has no batch at its turn gets None.

        Args:
            number: Epoch, part of the seed.
            shard: The worker.
        """
        generator = np.random.default_rng((self._config.seed, number))
        # Not sorted by length: batch normalisation wants batches that are like the data.
        order = generator.permutation(len(self._first))
        for place in step_places(self._num_cuts, shard):
            if place is None:
                yield None
            else:
                dropout = np.random.default_rng((self._config.seed, number, place))
                yield self._hide_items(self._collate(self._cut(order, place)), dropout)

    def once(self, *, shard: Shard = WHOLE) -> Iterator[PointBatch]:
        """Yield a worker's batches, each target once in all, none hidden."""
        order = np.argsort(self._length, kind="stable")
        for place in range(shard.rank, self._num_cuts, shard.size):
            yield self._collate(self._cut(order, place))

    def _cut(self, order: IntArray, place: int) -> IntArray:
        """Return the requests of one of the equal cuts, those of short histories first."""
        edges = np.array([place, place + 1]) * len(order) // self._num_cuts
        requests = order[edges[0] : edges[1]]
        return requests[np.argsort(self._length[requests], kind="stable")]

    def _collate(self, requests: IntArray) -> PointBatch:
        """Gather the targets of requests and the histories before them."""
        count = self._count[requests]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        place = np.repeat(self._first[requests], count) + within
        event = self._targets[place]
        return PointBatch(
            item=torch.from_numpy(self._item[event]),
            context=torch.from_numpy(self._context[event]),
            numbers=torch.from_numpy(self._numbers[event]),
            actions=self._bits(self.data.actions[event]),
            request=torch.from_numpy(np.repeat(np.arange(len(requests)), count)),
            place=torch.from_numpy(place),
            history=self._history(requests),
        )

    def _history(self, requests: IntArray) -> History:
        """Gather the last events of the pool before each request, right-aligned."""
        length = self._length[requests]
        width = max(int(length.max(initial=0)), MIN_HISTORY)
        back = np.arange(-width, 0)
        valid = -back <= length[:, None]
        event = self._pool[np.where(valid, self._end[requests][:, None] + back, 0)]
        own = self._merged[self._targets[self._first[requests]]][:, None]
        age = np.minimum(own - self._merged[event], NUM_AGE_BUCKETS - 1)
        columns = [self._item[event], self.data.actions[event], self._dwell[event], age]
        item, actions, dwell, age = (np.where(valid, c, 0).astype(np.int32) for c in columns)
        return History(
            item=torch.from_numpy(item),
            actions=self._bits(actions),
            dwell=torch.from_numpy(dwell),
            age=torch.from_numpy(age),
            valid=torch.from_numpy(valid),
        )

    def _bits(self, actions: IntArray) -> Tensor:
        """Return the actions as 0 or 1, [..., A] float32."""
        bits = torch.from_numpy(actions)[..., None] >> torch.arange(self.num_actions)
        return (bits & 1).float()

    def _hide_items(self, batch: PointBatch, generator: np.random.Generator) -> PointBatch:
        """Replace a share of the item indices, shown and earlier ones, by the unknown item."""
        if not self._config.item_dropout_fraction:
            return batch

        def hidden(item: Tensor) -> Tensor:
            kept = generator.random(item.shape, np.float32) >= self._config.item_dropout_fraction
            return item * torch.from_numpy(kept)

        history = replace(batch.history, item=hidden(batch.history.item))
        return replace(batch, item=hidden(batch.item), history=history)
