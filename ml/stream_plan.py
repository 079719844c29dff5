"""Plan the batches of an epoch over chunks of rows, from the rows' lengths alone.

A step of W batches has W lanes, one batch of each; every lane reads its own chunks, and every
chunk is of one lane. The rule, the same for whoever computes it:

1. The epoch shuffles the chunks. In that order each goes to the lane that has the fewest events
   so far, the lowest of several.
2. A lane takes its chunks in groups; the rows of a group are cut by length as the rows in memory
   are, and the cuts come in random order.
3. An epoch has as many steps as the fullest lane of any planned epoch has cuts. A lane that has
   fewer halves its cuts of most rows until it has as many, so that no lane is idle at the end of
   an epoch; only one with fewer rows than there are steps lacks batches, at its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ml.batches import BatchConfig
from ml.features import IntArray
from ml.length_cuts import cut_by_length, halved_until, num_cuts

# Shapes: R rows of a chunk, C chunks, L longest row and one more.


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
        batches: The batch of each step, those of a group in a row; None where there is none.
    """

    groups: list[list[int]]
    batches: list[PlannedBatch | None]


class StreamPlan:
    """Plan epochs; holds the lengths of all rows, no row."""

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
            epochs: How many epochs have to fit into one number of steps.
        """
        self._config, self._shuffle_chunks, self._epochs = config, shuffle_chunks, epochs
        self._lengths = [np.asarray(rows, np.int32) for rows in lengths]
        self._rows = [
            np.flatnonzero((np.asarray(count) > 0) & (rows > 0))
            for rows, count in zip(self._lengths, targets, strict=True)
        ]
        longest = max((int(rows.max(initial=0)) for rows in self._lengths), default=0)
        self._histograms_CL = np.zeros((len(self._rows), longest + 1), np.int32)
        for chunk, (length, rows) in enumerate(zip(self._lengths, self._rows, strict=True)):
            self._histograms_CL[chunk] = np.bincount(length[rows], minlength=longest + 1)
        self._events = self._histograms_CL @ np.arange(longest + 1)
        self._steps: dict[int, int] = {}

    @property
    def chunks(self) -> list[int]:
        """Return the chunks that have a row to train on."""
        return [chunk for chunk, rows in enumerate(self._rows) if len(rows)]

    def num_steps(self, lanes: int) -> int:
        """Return the steps of every planned epoch.

        Raises:
            ValueError: If there are fewer chunks than lanes.
        """
        if lanes not in self._steps:
            self._steps[lanes] = max(
                self._num_cuts(chunks)
                for number in range(self._epochs)
                for chunks in self._dealt(number, lanes)
            )
        return self._steps[lanes]

    def lane(self, number: int, *, lane: int, lanes: int) -> LanePlan:
        """Return the batches of one lane in an epoch, one for each step.

        Raises:
            ValueError: If the epoch was not planned, or there are fewer chunks than lanes.
        """
        if not 0 <= number < self._epochs:
            raise ValueError(f"epoch {number} is not one of the {self._epochs} that were planned")
        steps = self.num_steps(lanes)
        groups = self._groups(self._dealt(number, lanes)[lane])
        generator = np.random.default_rng((self._config.seed, number, lane, lanes))
        cuts, group_of = [], []
        for place, group in enumerate(groups):
            found = self.cuts(group, generator)
            cuts += found
            group_of += [place] * len(found)
        batches: list[PlannedBatch | None] = []
        parts = halved_until(cuts, steps)
        edges = np.searchsorted([group_of[cut] for cut, _ in parts], range(len(groups) + 1))
        for place, (first, end) in enumerate(pairwise(edges)):
            order = first + generator.permutation(end - first)
            batches += [PlannedBatch(group=place, rows=parts[part][1]) for part in order]
        return LanePlan(groups=groups, batches=batches + [None] * (steps - len(batches)))

    def cuts(self, group: list[int], generator: np.random.Generator) -> list[IntArray]:
        """Shuffle the rows of a group of chunks and cut them by length."""
        lengths = np.concatenate([self._lengths[chunk] for chunk in group])
        sizes = [len(self._lengths[chunk]) for chunk in group]
        firsts = np.cumsum([0, *sizes[:-1]])
        rows = [first + self._rows[chunk] for first, chunk in zip(firsts, group, strict=True)]
        shuffled = generator.permutation(np.concatenate(rows))
        return cut_by_length(shuffled, lengths[shuffled], events=self._config.events)

    def _dealt(self, number: int, lanes: int) -> list[list[int]]:
        """Return the chunks of each lane in an epoch.

        Raises:
            ValueError: If there are fewer chunks than lanes.
        """
        chunks = np.array(self.chunks)
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

    def _groups(self, chunks: list[int]) -> list[list[int]]:
        size = self._shuffle_chunks
        return [chunks[start : start + size] for start in range(0, len(chunks), size)]

    def _num_cuts(self, chunks: list[int]) -> int:
        """Return how many cuts a lane's chunks give."""
        starts = range(0, len(chunks), self._shuffle_chunks)
        of_groups = np.add.reduceat(self._histograms_CL[chunks], starts, axis=0)
        return int(num_cuts(of_groups, events=self._config.events).sum())
