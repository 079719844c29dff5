"""Rows in memory that are given chunk by chunk, with a record of what was read and is held."""

import weakref

import numpy as np

from ml.features import IntArray, SequenceData
from tests.ml.sequence_examples import sequences


class MemoryChunks:
    """Give parts of a split as chunks.

    Attributes:
        parts: The chunks.
        reads: Chunks in the order in which they were read.
        most_alive: Most chunks of which any part was held when another had been read.
    """

    def __init__(self, parts: list[SequenceData]) -> None:
        """Take the chunks."""
        self.parts = parts
        self.reads: list[int] = []
        self.most_alive = 0
        self._given: list[weakref.ref[np.ndarray]] = []

    @property
    def num_chunks(self) -> int:
        """Return the number of chunks."""
        return len(self.parts)

    def lengths(self, chunk: int) -> IntArray:
        """Return the events of each row."""
        return self.parts[chunk].lengths

    def targets(self, chunk: int) -> IntArray:
        """Return the target events of each row."""
        part = self.parts[chunk]
        return np.bincount(part.event_row[part.is_target], minlength=part.num_rows)

    def read(self, chunk: int) -> SequenceData:
        """Return a copy of a chunk."""
        self.reads.append(chunk)
        data = self.parts[chunk].take(np.arange(self.parts[chunk].num_rows))
        self._given.append(weakref.ref(data.item))
        self.most_alive = max(self.most_alive, sum(one() is not None for one in self._given))
        return data


def chunks_of(*lengths: list[int]) -> MemoryChunks:
    """Return a chunk of random rows for each list of lengths; the items differ between them."""
    return MemoryChunks([sequences(rows, seed=seed) for seed, rows in enumerate(lengths)])
