"""Where the rows of a split come from if they are not all in memory: chunk by chunk.

Knows no table format; `infra/delta_rows.py` reads the chunks of a Delta table.
"""

from dataclasses import dataclass
from typing import Protocol

from ml.features import SPLITS, IntArray, SequenceData

# Shapes: R rows of a chunk.


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """Say how rows are streamed instead of held.

    A worker holds at most `shuffle_chunks` x (1 + `groups_ahead`) chunks, for each of its lanes
    (one, unless fewer workers than planned do the batches of a step).

    Attributes:
        chunk_rows: Rows that are read together at most, counted over all splits of the table.
        shuffle_chunks: Chunks whose rows are mixed into batches together.
        groups_ahead: Groups of so many chunks that a background thread reads and prepares while
            the batches of another are used; 0 for none, and then training waits for each.
    """

    chunk_rows: int = 1024
    shuffle_chunks: int = 4
    groups_ahead: int = 1

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a number is out of range.
        """
        if min(self.chunk_rows, self.shuffle_chunks) < 1 or self.groups_ahead < 0:
            raise ValueError(
                f"chunk_rows and shuffle_chunks must be at least 1, groups_ahead 0, got {self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsReference:
    """Say which rows a training streams; plain values, so that it travels as JSON.

    Attributes:
        uri: Folder of the table, local or on an object store; no credentials.
        version: Version of the table; later writes are not seen.
        split: The split whose rows are read.
        chunk_rows: Rows that are read together at most.
    """

    uri: str
    version: int
    split: str
    chunk_rows: int

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the split is unknown or a number is out of range.
        """
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}; a split is one of {SPLITS}")
        if self.version < 0 or self.chunk_rows < 1:
            raise ValueError("version must be at least 0 and chunk_rows at least 1")


class RowChunks(Protocol):
    """Give the rows of a split in chunks; the same chunks, rows and order whoever asks.

    Lengths and targets are asked of all chunks before the first is read, so they must come from
    what is cheap to read. Several threads may read at once.
    """

    @property
    def num_chunks(self) -> int:
        """Return the number of chunks."""
        ...

    def lengths(self, chunk: int) -> IntArray:
        """Return the events of each row of a chunk, [R]."""
        ...

    def targets(self, chunk: int) -> IntArray:
        """Return the target events of each row of a chunk, [R]."""
        ...

    def read(self, chunk: int) -> SequenceData:
        """Read the rows of a chunk, in the order of `lengths`."""
        ...
