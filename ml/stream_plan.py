"""Plan the batches of an epoch over chunks of rows, from the rows' lengths alone.

A step of W batches has W lanes, one batch of each; every lane reads its own chunks, and every
chunk is of one lane. The rule, the same for whoever computes it:

1. The epoch shuffles the chunks. In that order each goes to the lane that has the fewest events
   so far, the lowest of several.
2. A lane takes its chunks in groups; the rows of a group are cut by length as the rows in memory
   are, and the cuts come in random order.
3. An epoch has as many steps as the fullest lane of any planned epoch has cuts. That is the fewest
   that lose no row, for a cut can hold no more. A lane that has fewer cuts spreads its rows over
   more: each group is cut further, by its share of the rows that do not yet stand alone, halving
   its cuts of most rows. So a lane lacks batches only where it has fewer rows than there are steps,
   at its end. If that is so of every lane, because the rows are so long that most of them stand
   alone, the epoch ends with steps that have no batch at all: a training moves no weight in them,
   and its schedule goes on.
4. An epoch past the planned ones deals its chunks as one of them did, and so has as many steps; its
   groups come in another order, its rows are shuffled and cut anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ml.batches import BatchConfig
from ml.features import IntArray
from ml.length_cuts import cut_by_length, halved_until, num_cuts

# Shapes: R rows of a chunk, C chunks, G groups of a lane,
# L longest row and one more.


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedBatch:
    """Say which rows make a batch.

    Attributes:
        group: Place of the group among the lane's.
        rows: Rows, counted through the group's chunks in their order.
    """

    group: int
    rows: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class LanePlan:
    """Hold what a lane does in an epoch.

    Attributes:
        groups: The chunks of each group.
        batches: The batch of each step, those of a group in a row; None where there is none. A
            group is cut when its first batch is asked for, so it can be read once only.
    """

    groups: list[list[int]]
    batches: Iterator[PlannedBatch | None]


class StreamPlan:
    """Plan epochs; holds the lengths and targets of all rows, not copied if int32, and no row."""

    def __init__(
        self,
        lengths: Sequence[IntArray],
        targets: Sequence[IntArray],
        *,
        config: BatchConfig,
        shuffle_chunks: int,
        epochs: int,
    ) -> None:
        """Take the lengths.

        Args:
            lengths: Events of each row of each chunk, C times [R].
            targets: Target events of each row of each chunk; rows without one are left out.
            config: Batch size and seed.
            shuffle_chunks: Chunks of a group.
            epochs: How many epochs deal their chunks anew, see the module.
        """
        self._config, self._shuffle_chunks, self._epochs = config, shuffle_chunks, epochs
        self._lengths = [np.asarray(rows, np.int32) for rows in lengths]
        self._targets = [np.asarray(rows, np.int32) for rows in targets]
        self._chunks = [chunk for chunk in range(len(self._lengths)) if len(self._rows(chunk))]
        self._events = [int(self._lengths[c][self._rows(c)].sum()) for c in range(len(lengths))]
        self._longest = max((int(rows.max(initial=0)) for rows in self._lengths), default=0)
        self._steps: dict[int, int] = {}

    @property
    def chunks(self) -> list[int]:
        """Return the chunks that have a row to train on."""
        return self._chunks

    def num_steps(self, lanes: int) -> int:
        """Return the steps of every epoch.

        Raises:
            ValueError: If there are fewer chunks than lanes.
        """
        if lanes not in self._steps:
            self._steps[lanes] = max(
                int(self._num_cuts(self._grouped(chunks)).sum())
                for number in range(self._epochs)
                for chunks in self._dealt(number, lanes)
            )
        return self._steps[lanes]

    def lane(self, number: int, *, lane: int, lanes: int) -> LanePlan:
        """Return the batches of one lane in an epoch, one for each step.

        Raises:
            ValueError: If there are fewer chunks than lanes.
        """
        steps = self.num_steps(lanes)
        generator = np.random.default_rng((self._config.seed, number, lane, lanes))
        groups = self._grouped(self._dealt(number % self._epochs, lanes)[lane])
        if number >= self._epochs:
            groups = [groups[place] for place in generator.permutation(len(groups))]
        return LanePlan(groups=groups, batches=self._batches(groups, steps, generator))

    def _batches(
        self, groups: list[list[int]], steps: int, generator: np.random.Generator
    ) -> Iterator[PlannedBatch | None]:
        """Yield the batches of a lane's groups, then None until there are as many as steps."""
        counts = self._num_batches(groups, steps)
        for place, (group, count) in enumerate(zip(groups, counts, strict=True)):
            parts = [rows for _, rows in halved_until(self.cuts(group, generator), count)]
            for part in generator.permutation(len(parts)):
                yield PlannedBatch(group=place, rows=parts[part])
        for _ in range(steps - sum(counts)):
            yield None

    def _num_batches(self, groups: list[list[int]], steps: int) -> list[int]:
        """Return how many batches each group makes, so that they are as many as steps if may be."""
        cuts_G = self._num_cuts(groups)
        rows_G = np.array([sum(len(self._rows(chunk)) for chunk in group) for group in groups])
        spare_G = rows_G - cuts_G
        more = min(steps - int(cuts_G.sum()), int(spare_G.sum()))
        # Rounded as running sums are, the shares add up, and none is above what a group can spare.
        shares = np.cumsum(spare_G) * more // max(1, int(spare_G.sum()))
        return (cuts_G + np.diff(shares, prepend=0)).tolist()

    def cuts(self, group: list[int], generator: np.random.Generator) -> list[IntArray]:
        """Shuffle the rows of a group of chunks and cut them by length."""
        lengths = np.concatenate([self._lengths[chunk] for chunk in group])
        sizes = [len(self._lengths[chunk]) for chunk in group]
        firsts = np.cumsum([0, *sizes[:-1]])
        rows = [first + self._rows(chunk) for first, chunk in zip(firsts, group, strict=True)]
        shuffled = generator.permutation(np.concatenate(rows))
        return cut_by_length(shuffled, lengths[shuffled], events=self._config.events)

    def _dealt(self, number: int, lanes: int) -> list[list[int]]:
        """Return the chunks of each lane in an epoch.

        Raises:
            ValueError: If there are fewer chunks than lanes.
        """
        chunks = np.array(self._chunks)
        if len(chunks) < lanes:
            raise ValueError(
                f"{len(chunks)} chunks with a target cannot be shared by {lanes} workers (or "
                "batches per step); lower chunk_rows, or train on fewer"
            )
        dealt: list[list[int]] = [[] for _ in range(lanes)]
        events = np.zeros(lanes, np.int64)
        for chunk in np.random.default_rng((self._config.seed, number)).permutation(chunks):
            lane = int(events.argmin())
            dealt[lane].append(int(chunk))
            events[lane] += self._events[chunk]
        return dealt

    def _rows(self, chunk: int) -> IntArray:
        """Return the rows of a chunk to train on."""
        return np.flatnonzero((self._targets[chunk] > 0) & (self._lengths[chunk] > 0))

    def _grouped(self, chunks: list[int]) -> list[list[int]]:
        """Return a lane's chunks in groups."""
        size = self._shuffle_chunks
        return [chunks[start : start + size] for start in range(0, len(chunks), size)]

    def _num_cuts(self, groups: list[list[int]]) -> IntArray:
        """Return how many cuts each group gives, [G]."""
        histograms_GL = np.zeros((len(groups), self._longest + 1), np.int32)
        for place, group in enumerate(groups):
            for chunk in group:
                own = self._lengths[chunk][self._rows(chunk)]
                histograms_GL[place] += np.bincount(own, minlength=self._longest + 1)
        return num_cuts(histograms_GL, events=self._config.events)
