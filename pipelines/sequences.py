"""Sequences: each user's events as aligned arrays, oldest first, cut at the split boundaries.

What a row may hold:
- train: the newest `max_events` events before `validation_start`, as of that boundary; undated
  history fills the places that dated events leave, and is never a target.
- validation, test: chunk c has the split's events c * max_events and following, at most
  `max_events` of them, behind the `max_events` events just before them (of any earlier split or
  chunk, and history). Chunks are counted from the oldest event, so no later event moves a chunk
  or takes a place in the context of an earlier event.

An event belongs to the split of its own time. It is a target only if its request began in that
split as well: a request that straddles a boundary is split strictly by time, and its later part
serves as context alone. `request_index` ranks the first times of the requests within the row;
requests that began at the same instant share a rank, and where requests overlap the index of
neighbours may fall. An event may use what stands before it with a lower `request_index`:
timelines.py says why this never looks at its own instant or later.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from pipelines.arrow_groups import whole_groups
from pipelines.event_features import SequenceInputs, add_event_features
from pipelines.sequence_arrays import CARRIED, Cut, sequence_rows
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import SEQUENCES
from pipelines.timelines import moment_of, with_history


def build_sequences(
    inputs: SequenceInputs, *, manifest: SourceManifest, max_events: int = 128
) -> DataFrame:
    """Build the sequences of every user that has events in a split.

    Events are shuffled by user once, with the columns that a row holds and no others, and cut
    into rows as Arrow batches (sequence_arrays.py).

    Args:
        inputs: Interactions, items, users, item counters, percentile cuts and undated history.
        manifest: The source's manifest.
        max_events: Most own events of a row; its context holds at most as many again.

    Returns:
        A frame of the sequences table, one row per user, split and chunk.

    Raises:
        ValueError: If max_events is below 1.
    """
    if max_events < 1:
        raise ValueError(f"max_events must be at least 1, not {max_events}")
    events = with_history(inputs.interactions, inputs.history)
    events = add_event_features(events, inputs=inputs, manifest=manifest)
    narrow = events.withColumns(
        {"moment": moment_of(), "position": F.coalesce("position", F.lit(-1))}
    ).select("user_id", "request_id", "moment", "is_mature", *CARRIED)
    users = inputs.users.select("user_id", "user_index")
    of_users = (
        narrow.repartition("user_id")
        .join(users.hint("merge"), on="user_id", how="left")
        .withColumn("user_index", F.coalesce("user_index", F.lit(0)))
        .sortWithinPartitions("user_id")
    )
    cut = Cut(
        validation_start_micros=_micros(manifest.validation_start),
        test_start_micros=_micros(manifest.test_start),
        max_events=max_events,
    )
    schema = to_arrow_schema(SEQUENCES.schema, timezone="UTC")

    def cut_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for events in whole_groups(batches, key="user_id"):
            yield from sequence_rows(events, cut=cut, schema=schema).to_batches()

    return of_users.mapInArrow(cut_rows, SEQUENCES.schema)


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)
