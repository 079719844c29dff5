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

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.event_features import EVENT_FEATURES, SequenceInputs, add_event_features
from pipelines.sources.manifest import SourceManifest
from pipelines.splits import SPLITS
from pipelines.tables import SEQUENCES
from pipelines.timelines import collect_timelines, with_history

_FIELDS = (
    "event_id",
    "event_time",
    "action_bits",
    "dwell_bucket",
    "local_hour",
    "local_weekday",
    "true_probability",
    "reachable_probability",
    *EVENT_FEATURES,
)
_LAST_POSITION = 63


def build_sequences(
    inputs: SequenceInputs, *, manifest: SourceManifest, max_events: int = 128
) -> DataFrame:
    """Build the sequences of every user that has events in a split.

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
    timelines = collect_timelines(events, fields=_FIELDS, manifest=manifest)
    rows = _slice_rows(timelines, max_events=max_events)
    users = inputs.users.select("user_id", "user_index")
    return rows.join(users, on="user_id", how="left").select(*_contract_columns())


def _slice_rows(timelines: DataFrame, *, max_events: int) -> DataFrame:
    counted = timelines.select(
        "user_id",
        "events",
        _count_before("train").alias("first_train"),
        _count_before("validation").alias("first_validation"),
        _count_before("test").alias("first_test"),
        F.size("events").alias("num_all"),
    )
    bounds = F.concat(
        _train_bounds(max_events),
        _chunk_bounds("validation", stop=F.col("first_test"), max_events=max_events),
        _chunk_bounds("test", stop=F.col("num_all"), max_events=max_events),
    )
    rows = F.transform(bounds, lambda bound: _row(F.col("events"), bound))
    return counted.select("user_id", F.explode(rows).alias("row")).select("user_id", "row.*")


def _count_before(split: str) -> Column:
    earlier = SPLITS[: SPLITS.index(split)]

    def is_before(event: Column) -> Column:
        return event["split"].isNull() | event["split"].isin(*earlier)

    return F.size(F.filter("events", is_before))


def _bound(split: str, **columns: Column) -> Column:
    named = {"split": F.lit(split), **columns}
    return F.struct(*(column.alias(name) for name, column in named.items()))


def _train_bounds(max_events: int) -> Column:
    history, stop = F.col("first_train"), F.col("first_validation")
    start = F.greatest(F.lit(0), stop - max_events)
    first = F.greatest(history, start)
    bound = _bound("train", chunk=F.lit(0), start=start, first=first, stop=stop)
    return F.filter(F.array(bound), lambda row: row["stop"] > row["first"])


def _chunk_bounds(split: str, *, stop: Column, max_events: int) -> Column:
    split_first = F.col(f"first_{split}")

    def chunk_bound(first: Column, chunk: Column) -> Column:
        return _bound(
            split,
            chunk=chunk,
            start=F.greatest(F.lit(0), first - max_events),
            first=first,
            stop=F.least(stop, first + max_events),
        )

    firsts = F.sequence(split_first, F.greatest(split_first, stop - 1), F.lit(max_events))
    return F.filter(F.transform(firsts, chunk_bound), lambda row: row["stop"] > row["first"])


def _row(events: Column, bound: Column) -> Column:
    return F.struct(
        bound["split"].alias("split"),
        bound["chunk"].alias("chunk"),
        (bound["first"] - bound["start"]).alias("num_context"),
        F.slice(events, bound["start"] + 1, bound["stop"] - bound["start"]).alias("events"),
    )


def _contract_columns() -> list[Column]:
    events = F.col("events")
    moments = F.sort_array(F.array_distinct(F.col("events.request_moment")))
    computed = {
        "user_index": F.coalesce("user_index", F.lit(0)),
        "num_events": F.size(events),
        "num_targets": F.size(F.filter(_is_target(events), lambda is_target: is_target)),
        "request_index": F.transform(
            events, lambda event: F.array_position(moments, event["request_moment"]).cast("int")
        ),
        "position": F.transform(
            "events.position",
            lambda rank: F.least(F.greatest(rank + 1, F.lit(0)), F.lit(_LAST_POSITION)),
        ),
        "is_target": _is_target(events),
    }
    plain = {name: F.col(name) for name in ("user_id", "split", "chunk")}
    known = plain | computed
    return [
        known.get(name, F.col(f"events.{name}")).cast(kind).alias(name)
        for name, kind in SEQUENCES.columns
    ]


def _is_target(events: Column) -> Column:
    return F.transform(
        events, lambda event, place: event["is_target"] & (place >= F.col("num_context"))
    )
