"""Sequences: each user's events as aligned arrays, oldest first, cut at the split boundaries.

What a row may hold:
- train: the newest `max_events` events before `validation_start`, as of that boundary; undated
  history fills the places that dated events leave, and is never a target.
- validation, test: chunk c has the split's events c * max_events and following, at most
  `max_events` of them, behind the `max_events` events just before them (of any earlier split or
  chunk, and history). Chunks are counted from the oldest event, so no later event moves a chunk
  or takes a place in the context of an earlier event.

An event belongs to the split of its own time. It is a target only if its labels are final
(maturity.py) and its request began in that split as well: a request that straddles a boundary is
split strictly by time, and its later part serves as context alone. `request_index` ranks the
first times of the requests within the row; requests that began at the same instant share a rank,
and where requests overlap the index of neighbours may fall. An event may use what stands before
it with a lower `request_index`: timelines.py says why this never looks at its own instant or
later. `session_index` counts visits: a new one begins after `SESSION_GAP` without an event.

An event that was filed under two days, as a redelivery across midnight is, stands once: the row
that arrived last, then the one with the latest time, then the one with the greatest values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from pipelines.arrow_groups import clustered, whole_groups
from pipelines.event_features import CLOCK, DAY_NUMBERS
from pipelines.maturity import mature_until
from pipelines.sequence_arrays import Cut, sequence_rows, with_times
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import SEQUENCES
from pipelines.timelines import moment_of, with_history

SESSION_GAP = timedelta(minutes=30)
_USER_HASH = "user_hash"
_CARRIED = tuple(
    name
    for name, kind in SEQUENCES.columns
    if kind.startswith("array<")
    # What is made here, and the time, which the moment tells as well.
    and name not in ("request_index", "session_index", "is_target", "event_time")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceInputs:
    """Group the tables that sequences are built from.

    Attributes:
        events: The sequence_events table, all days.
        items: The items table.
        users: The users table.
        history: Undated history (user_id, item_ids, action_bits, dwell_bucket), or None.
    """

    events: DataFrame
    items: DataFrame
    users: DataFrame
    history: DataFrame | None = None


def build_sequences(
    inputs: SequenceInputs, *, manifest: SourceManifest, max_events: int = 128
) -> DataFrame:
    """Build the sequences of every user that has events in a split.

    Args:
        inputs: Daily segments, items, users and undated history.
        manifest: The source's manifest.
        max_events: Most own events of a row; its context holds at most as many again.

    Returns:
        A frame of the sequences table, one row per user, split and chunk.

    Raises:
        ValueError: If max_events is below 1.
    """
    if max_events < 1:
        raise ValueError(f"max_events must be at least 1, not {max_events}")
    events = with_history(inputs.events, inputs.history)
    indices = inputs.items.select("item_id", "item_index")
    nothing_known = {
        name: F.coalesce(name, F.lit(0)) for name in ("surface_index", "item_index", *DAY_NUMBERS)
    }
    no_clock = {name: F.coalesce(name, F.lit(-1)) for name in CLOCK}
    narrow = (
        events.join(indices, on="item_id", how="left")
        .withColumns(
            {"moment": moment_of(), "position": F.coalesce("position", F.lit(-1))}
            | nothing_known
            | no_clock
        )
        .select("user_id", "request_id", "arrival_date", "moment", *_CARRIED)
    )
    cut = Cut(
        validation_start_micros=_micros(manifest.validation_start),
        test_start_micros=_micros(manifest.test_start),
        mature_until_micros=_micros(mature_until(manifest)),
        session_gap_micros=_whole_micros(SESSION_GAP),
        max_events=max_events,
    )
    return cut_by_user(narrow, users=inputs.users, cut=cut, schema=SEQUENCES.schema)


def cut_by_user(
    events: DataFrame, *, cut: Cut, schema: StructType, users: DataFrame | None = None
) -> DataFrame:
    """Shuffle events by user once, and cut each user's into rows as Arrow batches.

    Within a partition the rows are sorted by a 64-bit hash of the user, a number that Spark sorts
    by its digits; two users of one hash are told apart afterwards.

    Args:
        events: `user_id`, `moment` (long; orders the events, timelines.py) and the columns that
            `sequence_arrays.sequence_rows` needs for the schema, and no others: each column
            passes through the shuffle. Times are made from the moments.
        cut: Where timelines are cut.
        schema: Columns of the outcome.
        users: user_id and user_index, where the schema asks for `user_index`; 0 if not in it.

    Returns:
        Rows of the schema.
    """
    of_users = events.repartition("user_id")
    if users is not None:
        of_users = of_users.join(
            users.select("user_id", "user_index").hint("shuffle_hash"), on="user_id", how="left"
        ).withColumn("user_index", F.coalesce("user_index", F.lit(0)))
    hashes = {"event_hash": F.xxhash64("event_id"), _USER_HASH: F.xxhash64("user_id")}
    ready = of_users.withColumns(hashes).sortWithinPartitions(_USER_HASH)
    arrow_schema = to_arrow_schema(schema, timezone="UTC")

    def cut_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_groups(batches, key=_USER_HASH):
            events = with_times(clustered(group, key="user_id", hashed=_USER_HASH))
            yield from sequence_rows(events, cut=cut, schema=arrow_schema).to_batches()

    return ready.mapInArrow(cut_rows, schema)


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return _whole_micros(aware - datetime(1970, 1, 1, tzinfo=UTC))


def _whole_micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
