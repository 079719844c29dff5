"""Cut sequences into right-padded batches, the same for a seed, an epoch and a world size."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ml.features import (
    NO_TIME,
    FeatureSpec,
    FloatArray,
    IntArray,
    SequenceData,
    merged_requests,
)
from ml.length_cuts import cut_by_length

# Shapes: B rows, S events of the longest row, C context columns, A actions, F numbers, E events.
CONTEXT_COLUMNS = (
    "position",
    "surface",
    "hour",
    "weekday",
    "age",
    "popularity",
    "rate",
    "gap",
)
NUM_GAP_BUCKETS = 24
_PROBE_EPOCH = 1_000_000
PAD_REQUEST = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Hold right-padded sequences.

    Attributes:
        item: [B, S] Item index, 0 unknown or padding.
        request: [B, S] Request number; padding has `PAD_REQUEST`, which no row may see.
        session: [B, S] Session number, 0 for undated history and padding.
        time: [B, S] Seconds since 1970, `NO_TIME` for undated history and padding; int64.
        context: [B, S, C] What is known when the item is shown, in `CONTEXT_COLUMNS` order.
        actions: [B, S, A] 0 or 1 per action; the labels.
        dwell: [B, S] Dwell bucket, an outcome.
        target: [B, S] True where losses and metrics count.
        weight: [B, S] Weight of the event's loss.
        numbers: [B, S, F] Numeric facts that are known when the item is shown.
        crosses: [B, S, X] Hashed pairs of facts, likewise; 0 for none.
        row: [B] Row of the sequence data that each sequence came from.
    """

    item: Tensor
    request: Tensor
    session: Tensor
    time: Tensor
    context: Tensor
    actions: Tensor
    dwell: Tensor
    target: Tensor
    weight: Tensor
    numbers: Tensor
    crosses: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class EventExtras:
    """Hold what is computed for each event beside the sequences' own columns.

    Attributes:
        weights: Weight of each event's loss, float32 [E]; None weighs all alike.
        numbers: Numeric facts of each event, float32 [E, F]; None for none.
        crosses: Hashed pairs of facts of each event, int32 [E, X]; None for none.
    """

    weights: FloatArray | None = None
    numbers: FloatArray | None = None
    crosses: IntArray | None = None


NO_EXTRAS = EventExtras()


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """Say how sequences are cut into batches.

    Attributes:
        events: Padded events per batch at most (a longer row is a batch of its own).
        seed: Seed of the order of rows and batches.
        item_dropout_fraction: Share of events whose item index is hidden while training.
    """

    events: int = 8192
    seed: int = 0
    item_dropout_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.events < 1:
            raise ValueError(f"events must be at least 1, got {self.events}")
        if not 0 <= self.item_dropout_fraction < 1:
            raise ValueError("item_dropout_fraction must be in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Name one of several workers that share the batches.

    The batches of one step are what the workers together do between two updates. If their number
    is fixed, any number of workers up to it takes the same steps: fewer workers do several batches
    of a step each.

    Attributes:
        rank: The worker's number, from 0.
        size: How many workers there are.
        batches_per_step: Batches of a step; one for each worker by default.
    """

    rank: int = 0
    size: int = 1
    batches_per_step: int | None = None

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the rank is not one of the size's, or a step has no batch.
        """
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must be in [0, {self.size}), got {self.rank}")
        if self.batches_per_step is not None and self.batches_per_step < 1:
            raise ValueError(f"batches_per_step must be at least 1, got {self.batches_per_step}")

    @property
    def step_batches(self) -> int:
        """Return how many batches a step has, over all workers."""
        return self.size if self.batches_per_step is None else self.batches_per_step

    @property
    def own_places(self) -> list[int | None]:
        """Return the places within a step that this worker serves, None where it has none.

        All workers get equally many: place p is served by worker p modulo size.
        """
        count = -(-self.step_batches // self.size)
        places = [self.rank + turn * self.size for turn in range(count)]
        return [place if place < self.step_batches else None for place in places]


WHOLE = Shard()


def step_places(count: int, shard: Shard) -> list[int | None]:
    """Return which of an epoch's batches are a worker's, step by step.

    Step s is batches s * W to s * W + W - 1 of the epoch, W being the shard's `step_batches`.

    Args:
        count: Batches of the epoch, over all workers.
        shard: The worker.

    Returns:
        For each step as many places as for every other worker, None where the worker has no batch.
    """
    return [
        first + place if place is not None and first + place < count else None
        for first in range(0, count, shard.step_batches)
        for place in shard.own_places
    ]


class SequenceBatches:
    """Cut one split of sequences into batches for a feature spec."""

    def __init__(
        self,
        data: SequenceData,
        *,
        spec: FeatureSpec,
        config: BatchConfig,
        extras: EventExtras = NO_EXTRAS,
    ) -> None:
        """Prepare the columns.

        Args:
            data: Sequences of one split; rows without targets are left out.
            spec: Vocabulary sizes; values beyond them are read as unknown.
            config: Batch size and seed.
            extras: Weights and numbers of the events.
        """
        self._config = config
        self.data = data
        self.num_actions = len(spec.actions)
        self._columns = _columns(data, spec)
        self._time = np.append(data.time, NO_TIME).astype(np.int64)
        self._weights = _padded(extras.weights, np.ones(data.num_events, np.float32))
        self._numbers = _padded(extras.numbers, np.zeros((data.num_events, 0), np.float32))
        self._crosses = _padded(extras.crosses, np.zeros((data.num_events, 0), np.int32))
        targets = np.add.reduceat(data.is_target, data.offsets[:-1]) if data.num_rows else []
        self._rows = np.flatnonzero((np.asarray(targets) > 0) & (data.lengths > 0))

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return self.num_steps(size)

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        return -(-len(self._cut(self._rows)) // batches_per_step)

    @overload
    def epoch(self, number: int) -> Iterator[Batch]: ...
    @overload
    def epoch(self, number: int, *, shard: Shard) -> Iterator[Batch | None]: ...
    def epoch(self, number: int, *, shard: Shard = WHOLE) -> Iterator[Batch | None]:
        """Yield one worker's shuffled batches of an epoch, each batch for one worker.

        The order of all workers' batches depends on the seed and the epoch alone. All workers
        get equally many (`step_places`): one that has no batch at its turn gets None.

        Args:
            number: Epoch, part of the seed.
            shard: The worker.
        """
        generator = np.random.default_rng((self._config.seed, number))
        batches = self._cut(generator.permutation(self._rows))
        order = generator.permutation(len(batches))
        for place in step_places(len(batches), shard):
            if place is None:
                yield None
            else:
                dropout = np.random.default_rng((self._config.seed, number, place))
                yield self.of_rows(batches[order[place]], dropout=dropout)

    def probe(self, number: int) -> Batch:
        """Return a batch that is the same for all workers, another for each number."""
        return next(self.epoch(_PROBE_EPOCH + number))

    def of_rows(self, rows: IntArray, *, dropout: np.random.Generator) -> Batch:
        """Return rows as one batch, with items hidden as when training.

        Args:
            rows: Rows of the data.
            dropout: What draws the items that are hidden.
        """
        return self._hide_items(self._collate(rows), dropout)

    def once(self, *, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Yield a worker's batches in a fixed order, each sequence once in all, none hidden."""
        for rows in self._cut(self._rows)[shard.rank :: shard.size]:
            yield self._collate(rows)

    def _cut(self, rows: IntArray) -> list[IntArray]:
        """Group rows of similar length so that the padded batch keeps to its size."""
        return cut_by_length(rows, self.data.lengths[rows], events=self._config.events)

    def _collate(self, rows: IntArray) -> Batch:
        """Gather and right-pad rows."""
        lengths = self.data.lengths[rows]
        steps = np.arange(lengths.max())
        valid = steps < lengths[:, None]
        events = np.where(valid, self.data.offsets[rows][:, None] + steps, -1)
        columns = torch.from_numpy(self._columns[events])
        bits = columns[..., 2:3] >> torch.arange(self.num_actions, dtype=torch.int32)
        return Batch(
            item=columns[..., 0],
            request=columns[..., 1],
            session=columns[..., 5],
            time=torch.from_numpy(self._time[events]),
            actions=(bits & 1).float(),
            dwell=columns[..., 3],
            target=columns[..., 4].bool(),
            weight=torch.from_numpy(self._weights[events]),
            numbers=torch.from_numpy(self._numbers[events]),
            crosses=torch.from_numpy(self._crosses[events]),
            context=columns[..., 6:],
            row=torch.from_numpy(rows),
        )

    def _hide_items(self, batch: Batch, generator: np.random.Generator) -> Batch:
        """Replace a share of the item indices by the unknown item."""
        if not self._config.item_dropout_fraction:
            return batch
        kept = generator.random(batch.item.shape, np.float32)
        mask = torch.from_numpy(kept >= self._config.item_dropout_fraction)
        return replace(batch, item=batch.item * mask)


def context_sizes(spec: FeatureSpec) -> tuple[int, ...]:
    """Return the vocabulary of each of `CONTEXT_COLUMNS`."""
    sizes = {
        "position": spec.max_position,
        "surface": spec.num_surfaces,
        "hour": 25,
        "weekday": 8,
        "age": spec.num_age_buckets,
        "popularity": spec.num_percentiles,
        "rate": spec.num_percentiles,
        "gap": NUM_GAP_BUCKETS,
    }
    return tuple(sizes[name] for name in CONTEXT_COLUMNS)


def gap_buckets(data: SequenceData) -> IntArray:
    """Return the seconds since the user's previous request, in powers of two.

    0 is unknown (no earlier request, or undated), else 1 + floor(log2(1 + seconds)), clipped.
    """
    row, group = data.event_row, merged_requests(data) - 1
    starts = np.diff(group, prepend=-1) > 0
    first = np.flatnonzero(starts)
    before = np.maximum(first - 1, 0)
    known = (first > 0) & (row[before] == row[first])
    known &= (data.time[before] != NO_TIME) & (data.time[first] != NO_TIME)
    seconds = np.maximum(data.time[first] - data.time[before], 0)
    bucket = 1 + np.floor(np.log2(1.0 + seconds)).astype(np.int32)
    return np.where(known, np.minimum(bucket, NUM_GAP_BUCKETS - 1), 0)[group].astype(np.int32)


def context_values(data: SequenceData, spec: FeatureSpec) -> IntArray:
    """Return `CONTEXT_COLUMNS` of every event, int32 [E, C]; 0 is unknown."""
    values = {
        "position": data.position,
        "surface": data.surface,
        "hour": data.hour + 1,
        "weekday": data.weekday + 1,
        "age": data.age,
        "popularity": data.popularity,
        "rate": data.rate,
        "gap": gap_buckets(data),
    }
    sizes = zip(CONTEXT_COLUMNS, context_sizes(spec), strict=True)
    return np.stack([known(values[name], size) for name, size in sizes], axis=1).astype(np.int32)


def _columns(data: SequenceData, spec: FeatureSpec) -> IntArray:
    """Stack the model's columns, int32 [E + 1, 6 + C]; the last row is padding."""
    columns = np.column_stack(
        [
            known(data.item, spec.num_items + 1),
            data.request,
            data.actions,
            known(data.dwell, spec.num_dwell_buckets),
            data.is_target,
            data.session,
            context_values(data, spec),
        ]
    ).astype(np.int32)
    padding = np.zeros((1, columns.shape[1]), np.int32)
    padding[0, 1] = PAD_REQUEST
    return np.concatenate([columns, padding])


def _padded(values: np.ndarray | None, default: np.ndarray) -> np.ndarray:
    """Return the values, or the default, in its type and with a last row of zeros for padding.

    Raises:
        ValueError: If there are not as many rows as events.
    """
    values = default if values is None else np.asarray(values, default.dtype)
    if len(values) != len(default):
        raise ValueError(f"{len(values)} rows of extras do not fit {len(default)} events")
    return np.concatenate([values, np.zeros((1, *values.shape[1:]), default.dtype)])


def known(values: IntArray, size: int) -> IntArray:
    """Return the values inside a vocabulary, others as 0."""
    return np.where((values >= 0) & (values < size), values, 0)
