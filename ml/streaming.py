"""Cut sequences into batches while reading them, as `SequenceBatches` does from memory.

A worker reads the chunks of its own lanes and no other's (`ml/stream_plan.py` has the rule). For
each lane it holds one group of chunks and those that are read ahead. A group is there twice for
the moment in which its chunks are joined, then once, with the model's columns beside it. Beyond
that a worker holds the lengths and targets of the split, which the rows' source has: 8 bytes for
each row where they are int32, and three times that while it opens a Delta table. A group's cuts
are planned when it is reached.

What is computed of an event beside its own row must be fitted beforehand: a chunk is prepared as
if it were all there is.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields, replace
from typing import Protocol, overload

import numpy as np
import torch

from ml.batches import WHOLE, Batch, BatchConfig, SequenceBatches, Shard
from ml.features import IntArray, SequenceData
from ml.row_chunks import RowChunks, StreamConfig
from ml.stream_plan import LanePlan, StreamPlan
from ml.training.prefetch import prefetched

_PROBE = 1_000_000


class TrainingBatches(Protocol):
    """Give a training its batches, from memory or from a stream."""

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        ...

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        ...

    def epoch(self, number: int, *, shard: Shard) -> Iterator[Batch | None]:
        """Yield one worker's batches of an epoch, None where it has none."""
        ...

    def probe(self, number: int) -> Batch:
        """Return a batch that is the same for all workers."""
        ...


class StreamedBatches:
    """Read the chunks of a split and cut them into batches."""

    def __init__(
        self,
        rows: RowChunks,
        *,
        prepare: Callable[[SequenceData], SequenceBatches],
        config: BatchConfig,
        stream: StreamConfig,
        epochs: int,
    ) -> None:
        """Plan from the rows' lengths; no row is read yet.

        Args:
            rows: The split.
            prepare: Takes joined chunks, returns their batches with what the model wants of each
                event; only its rows' collation is used, and its items are hidden by its config.
            config: Batch size and seed.
            stream: How many chunks are mixed.
            epochs: Epochs of the training; all get the same number of steps, and those beyond
                them as well, see `StreamPlan`.

        Raises:
            ValueError: If no row has a target.
        """
        self._chunks, self._prepare = rows, prepare
        self._config, self._groups_ahead = config, stream.groups_ahead
        lengths = [rows.lengths(chunk) for chunk in range(rows.num_chunks)]
        targets = [rows.targets(chunk) for chunk in range(rows.num_chunks)]
        self._plan = StreamPlan(
            lengths,
            targets,
            config=config,
            shuffle_chunks=stream.shuffle_chunks,
            epochs=epochs,
        )
        if not self._plan.chunks:
            raise ValueError("no row of the split has a target; nothing to train on")
        self._first_row = np.cumsum([0, *(len(length) for length in lengths)])

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return self.num_steps(size)

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        return self._plan.num_steps(batches_per_step)

    @overload
    def epoch(self, number: int) -> Iterator[Batch]: ...
    @overload
    def epoch(self, number: int, *, shard: Shard) -> Iterator[Batch | None]: ...
    def epoch(self, number: int, *, shard: Shard = WHOLE) -> Iterator[Batch | None]:
        """Yield one worker's shuffled batches of an epoch, each row in one batch.

        Which batches there are, and of which step, depends on the seed, the epoch and the
        batches of a step. `Batch.row` counts the rows through all chunks.

        Args:
            number: Epoch, part of the seed.
            shard: The worker; of each step it gets the lanes that are its places.

        Raises:
            ValueError: If there are fewer chunks than batches of a step, or a chunk is not what
                was planned.
        """
        lanes = shard.step_batches
        with ExitStack() as opened:
            own = [
                opened.enter_context(closing(self._lane(number, lane=lane, lanes=lanes)))
                if lane is not None
                else None
                for lane in shard.own_places
            ]
            for _ in range(self.num_steps(lanes)):
                for batches in own:
                    yield next(batches) if batches is not None else None

    def probe(self, number: int) -> Batch:
        """Return a batch that is the same for all workers, another for each number.

        It reads one chunk, beside those that an epoch holds, and prepares the batch's rows only.
        """
        generator = np.random.default_rng((self._config.seed, _PROBE + number))
        chunk = int(generator.choice(self._plan.chunks))
        cuts = self._plan.cuts([chunk], generator)
        rows = cuts[int(generator.integers(len(cuts)))]
        prepared = self._prepare(self._read(chunk).take(rows))
        batch = prepared.of_rows(np.arange(len(rows)), dropout=generator)
        return replace(batch, row=torch.from_numpy(self._first_row[chunk] + rows))

    def _lane(self, number: int, *, lane: int, lanes: int) -> Generator[Batch | None, None, None]:
        """Yield one lane's batch of each step, holding one group of chunks and those ahead."""
        plan: LanePlan = self._plan.lane(number, lane=lane, lanes=lanes)
        with self._read_groups(plan.groups) as groups:
            current, prepared = -1, None
            for step, batch in enumerate(plan.batches):
                if batch is None:
                    prepared = None
                    yield None
                    continue
                if prepared is None or current != batch.group:
                    # Let go before the next one is taken: never both.
                    prepared = None
                    current, prepared = batch.group, next(groups)
                dropout = np.random.default_rng((self._config.seed, number, step * lanes + lane))
                group = plan.groups[batch.group]
                yield self._batch(prepared, group, rows=batch.rows, dropout=dropout)

    @contextmanager
    def _read_groups(self, groups: list[list[int]]) -> Iterator[Iterator[SequenceBatches]]:
        """Read groups one after the other, ahead if so configured."""
        read = map(self._group, groups)
        if not self._groups_ahead:
            yield read
            return
        with closing(prefetched(read, depth=self._groups_ahead)) as ahead:
            yield ahead

    def _group(self, chunks: list[int]) -> SequenceBatches:
        """Read chunks and prepare them together."""
        return self._prepare(joined([self._read(chunk) for chunk in chunks]))

    def _read(self, chunk: int) -> SequenceData:
        """Read a chunk.

        Raises:
            ValueError: If it does not hold what was planned.
        """
        data = self._chunks.read(chunk)
        counted = np.concatenate([[0], np.cumsum(data.is_target)])
        targets = counted[data.offsets[1:]] - counted[data.offsets[:-1]]
        planned = self._chunks.lengths(chunk), self._chunks.targets(chunk)
        if not all(map(np.array_equal, planned, (data.lengths, targets))):
            raise ValueError(
                f"chunk {chunk} of the rows has other events or targets than the table says beside "
                "them; build the table again"
            )
        return data

    def _batch(
        self,
        prepared: SequenceBatches,
        group: list[int],
        *,
        rows: IntArray,
        dropout: np.random.Generator,
    ) -> Batch:
        """Return rows of a group as a batch that names them by their place in the split."""
        numbers = [np.arange(*self._first_row[[chunk, chunk + 1]]) for chunk in group]
        batch = prepared.of_rows(rows, dropout=dropout)
        return replace(batch, row=torch.from_numpy(np.concatenate(numbers)[rows]))


def joined(parts: Sequence[SequenceData]) -> SequenceData:
    """Return the rows of several parts, one after the other.

    Raises:
        ValueError: If there is no part.
    """
    if not parts:
        raise ValueError("there is nothing to join")
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(part.num_events for part in parts[:-1])])
    ends = [part.offsets[1:] + first for part, first in zip(parts, firsts, strict=True)]
    names = [field.name for field in fields(SequenceData) if field.name != "offsets"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return SequenceData(offsets=np.concatenate([np.zeros(1, np.int64), *ends]), **columns)
