"""What one training example is: vocabulary sizes, and sequences as flat arrays.

A sequence is one user in one split: context events, then the split's own, oldest first. Events
of one request share a `request` number; outcomes are the action bits and the dwell bucket.
Nothing here knows where the columns came from.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]
FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

NO_TIME = -1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpec:
    """Fix the vocabulary sizes that a model is built for; every size counts the 0 of unknown.

    Attributes:
        num_items: Largest known item index; larger ones are read as unknown.
        actions: Ordered action names; position is the bit in the action bits.
        primary_action: The action of the headline metric.
        num_tags: Tag vocabulary.
        num_authors: Author hash buckets.
        code_sizes: Codes per level of the semantic ID.
        num_surfaces: Surface vocabulary.
        max_position: Position vocabulary.
        num_dwell_buckets: Dwell vocabulary.
        num_percentiles: Percentile vocabulary.
        num_age_buckets: Content-age vocabulary.
    """

    num_items: int
    actions: tuple[str, ...]
    primary_action: str
    num_tags: int = 1
    num_authors: int = 1
    code_sizes: tuple[int, ...] = ()
    num_surfaces: int = 1
    max_position: int = 64
    num_dwell_buckets: int = 9
    num_percentiles: int = 101
    num_age_buckets: int = 8

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a size is not positive or the primary action is unknown.
        """
        if self.primary_action not in self.actions:
            raise ValueError(f"primary action {self.primary_action!r} is not in {self.actions}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")

    @property
    def primary_index(self) -> int:
        """Return the position of the primary action."""
        return self.actions.index(self.primary_action)


EVENT_COLUMNS = {
    "item": "item_index",
    "request": "request_index",
    "session": "session_index",
    "actions": "action_bits",
    "dwell": "dwell_bucket",
    "position": "position",
    "surface": "surface_index",
    "hour": "local_hour",
    "weekday": "local_weekday",
    "age": "age_bucket",
    "popularity": "popularity_percentile",
    "rate": "rate_percentile",
    "impressions_7d": "item_impressions_7d",
    "positives_7d": "item_positives_7d",
}
# What the rows of a sequences table are sorted by, and every column that is read of it.
ROW_ORDER = ("split", "user_index", "chunk")
SEQUENCE_COLUMNS = (
    *ROW_ORDER,
    *EVENT_COLUMNS.values(),
    "event_time",
    "is_target",
    "is_shuffled",
    "propensity",
    "true_probability",
    "reachable_probability",
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SequenceData:
    """Hold many sequences as flat event columns plus row offsets.

    Attributes:
        offsets: First event of each row, and the total; int64 [R + 1].
        user: User index of each row, int32 [R].
        split: Position in `SPLITS` of each row, int8 [R].
        time: Seconds since 1970 of each event, `NO_TIME` if undated; int64 [E].
        session: Session number within the row, 0 for undated history; int32 [E].
        propensity: Probability that the logging policy put the item at its position, NaN if
            unknown; float64 [E].
        is_shuffled: Whether the request's order was drawn uniformly; bool [E].
        is_target: Events that count in losses and metrics, bool [E].
        true_probability: Planted probability of the primary action, NaN if unknown; [E].
        reachable_probability: Best probability from the visible history, or NaN; [E].

    The other fields are int32 [E], named in `EVENT_COLUMNS` with their table column.
    """

    offsets: IntArray
    user: IntArray
    split: IntArray
    item: IntArray
    request: IntArray
    session: IntArray
    actions: IntArray
    dwell: IntArray
    position: IntArray
    surface: IntArray
    hour: IntArray
    weekday: IntArray
    age: IntArray
    popularity: IntArray
    rate: IntArray
    impressions_7d: IntArray
    positives_7d: IntArray
    time: IntArray
    is_target: BoolArray
    is_shuffled: BoolArray
    propensity: FloatArray
    true_probability: FloatArray
    reachable_probability: FloatArray

    def __post_init__(self) -> None:
        """Check that all columns have one length.

        Raises:
            ValueError: If a column is longer or shorter than the offsets say.
        """
        for field in fields(self)[3:]:
            if len(getattr(self, field.name)) != self.num_events:
                raise ValueError(f"column {field.name} does not have {self.num_events} events")

    @property
    def num_rows(self) -> int:
        """Return the number of sequences."""
        return len(self.offsets) - 1

    @property
    def num_events(self) -> int:
        """Return the number of events of all sequences."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> IntArray:
        """Return the number of events of each sequence."""
        return np.diff(self.offsets)

    @property
    def event_row(self) -> IntArray:
        """Return the row of each event."""
        return np.repeat(np.arange(self.num_rows), self.lengths)

    def take(self, rows: IntArray) -> "SequenceData":
        """Return the given rows, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        names = [field.name for field in fields(self)[3:]]
        columns = {name: getattr(self, name)[events] for name in names}
        return SequenceData(
            offsets=offsets, user=self.user[rows], split=self.split[rows], **columns
        )

    def in_split(self, split: str) -> "SequenceData":
        """Return the rows of one split, in their order."""
        return self.take(np.flatnonzero(self.split == SPLITS.index(split)))

    def labels(self, bit: int) -> IntArray:
        """Return 0 or 1 for each event: whether the action of this bit happened."""
        return (self.actions >> bit) & 1

    def save(self, path: Path) -> None:
        """Write the columns into an uncompressed .npz file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "SequenceData":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> "SequenceData":
        """Read the rows of a sequences table, sorted by split, user and chunk.

        Raises:
            ValueError: If a column is missing, holds a null where none may be, or is ragged.
        """
        table = table.sort_by([(name, "ascending") for name in ROW_ORDER])
        names = table["split"].to_numpy(zero_copy_only=False).astype(str)
        if unknown := sorted(set(names) - set(SPLITS)):
            raise ValueError(f"unknown split {str(unknown[0])!r}; a split is one of {SPLITS}")
        lengths = _one_chunk(table, "item_index").value_lengths().to_numpy()
        codes = [names == split for split in SPLITS]
        return cls(
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            user=table["user_index"].to_numpy().astype(np.int32),
            split=np.select(codes, range(len(SPLITS)), default=-1).astype(np.int8),
            **_event_columns(table),
        )


def merged_requests(data: SequenceData) -> IntArray:
    """Return a number per event that rises with each request, overlapping requests being one.

    An event may use the events of lower numbers: they stand before it and are of lower requests.
    """
    row = data.event_row
    request = data.request.astype(np.int64) + row * (1 << 32)
    if not len(request):
        return request
    lowest_left = np.minimum.accumulate(request[::-1])[::-1]
    highest_so_far = np.maximum.accumulate(request)
    return np.cumsum(np.concatenate([[True], highest_so_far[:-1] < lowest_left[1:]]))


def _one_chunk(table: pa.Table, column: str) -> pa.ListArray:
    """Return a list column as one array.

    Raises:
        ValueError: If the column is missing.
    """
    if column not in table.column_names:
        raise ValueError(f"the sequences table has no column {column!r}")
    chunked = table[column]
    return pa.concat_arrays(chunked.chunks) if chunked.num_chunks != 1 else chunked.chunk(0)


def _flat(table: pa.Table, column: str) -> np.ndarray:
    """Return the elements of a list column without nulls.

    Raises:
        ValueError: If an element is null.
    """
    values = _one_chunk(table, column).flatten()
    if values.null_count:
        raise ValueError(f"column {column!r} has {values.null_count} null elements")
    return values.to_numpy(zero_copy_only=False)


def _event_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the flattened list columns of a sequences table."""
    columns: dict[str, np.ndarray] = {
        name: _flat(table, column).astype(np.int32) for name, column in EVENT_COLUMNS.items()
    }
    times = _one_chunk(table, "event_time").flatten().cast(pa.timestamp("us", "UTC"))
    micros = times.cast(pa.int64()).fill_null(NO_TIME * 1_000_000)
    columns["time"] = micros.to_numpy(zero_copy_only=False) // 1_000_000
    columns["is_target"] = _flat(table, "is_target").astype(bool)
    shuffled = _one_chunk(table, "is_shuffled").flatten().fill_null(False)
    columns["is_shuffled"] = shuffled.to_numpy(zero_copy_only=False).astype(bool)
    for name in ("propensity", "true_probability", "reachable_probability"):
        values = _one_chunk(table, name).flatten().cast(pa.float64())
        columns[name] = values.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    return columns
