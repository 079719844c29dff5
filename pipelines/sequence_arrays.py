"""Cut users' events into the rows of the sequences table, many users at a time, on Arrow arrays.

sequences.py says what a row may hold. The functions here are array arithmetic over the events of
whole users: one sort, then gathers; nothing is done per user or per event in Python.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.splits import SPLITS

# Columns of a row's arrays that are the events' own, in any order.
CARRIED = (
    "event_id",
    "event_time",
    "item_index",
    "action_bits",
    "dwell_bucket",
    "position",
    "surface_index",
    "local_hour",
    "local_weekday",
    "age_bucket",
    "popularity_percentile",
    "rate_percentile",
    "item_impressions_7d",
    "item_positives_7d",
    "true_probability",
    "reachable_probability",
)
_UNDATED = -1
_LAST_POSITION = 63


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Say where timelines are cut.

    Attributes:
        validation_start_micros: Start of the validation split, microseconds since 1970 in UTC.
        test_start_micros: Start of the test split.
        max_events: Most own events of a row; its context holds at most as many again.
    """

    validation_start_micros: int
    test_start_micros: int
    max_events: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Hold one output row per place: its user, split and chunk, and its events' places.

    start is the first event of the row, first the first that is the split's own, stop the end.
    """

    user: np.ndarray
    split: np.ndarray
    chunk: np.ndarray
    start: np.ndarray
    first: np.ndarray
    stop: np.ndarray


def sequence_rows(events: pa.Table, *, cut: Cut, schema: pa.Schema) -> pa.Table:
    """Build the rows of whole users.

    Args:
        events: user_id, user_index, request_id, moment (long, orders the events; timelines.py),
            is_mature, position (rank or -1) and the columns of `CARRIED`. All events of a user
            must be there; users must be clustered.
        cut: Where to cut.
        schema: Columns of the outcome, in order: those of the sequences table.

    Returns:
        The rows, by user, split and chunk.
    """
    user = _run_codes(events["user_id"])
    request_moment, request_split = _requests(events, user, cut)
    order = _in_time(events, user, request_moment)
    split = _split_of(events["event_time"], cut)
    mature = pc.fill_null(events["is_mature"], False).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    is_target = (split != _UNDATED) & mature & (request_split == split)
    rows = _bounds(user[order], split[order], max_events=cut.max_events)
    lengths = rows.stop - rows.start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(offsets[-1]) - offsets[row]
    taken = order[rows.start[row] + within]
    target = is_target[taken] & (within >= (rows.first - rows.start)[row])
    lists = {name: events[name].take(pa.array(taken)) for name in CARRIED}
    lists["position"] = pa.array(_shifted_positions(events["position"].to_numpy()[taken]))
    lists["request_index"] = pa.array(_dense_ranks(row, request_moment[taken]))
    lists["is_target"] = pa.array(target)
    of_user = pa.array(order[rows.start])
    plain = {
        "user_id": events["user_id"].take(of_user),
        "user_index": events["user_index"].take(of_user),
        "split": pa.array(np.array(SPLITS, dtype=object)[rows.split], pa.string()),
        "chunk": pa.array(rows.chunk),
        "num_events": pa.array(lengths),
        "num_targets": pa.array(np.bincount(row, weights=target, minlength=len(lengths))),
    }
    return _as_table(plain, lists, offsets=offsets, schema=schema)


def _in_time(events: pa.Table, user: np.ndarray, request_moment: np.ndarray) -> np.ndarray:
    """Return the places of the events by user and, within one, in the order of timelines.py."""
    keys = events.select(["moment", "request_id", "position", "event_id"])
    keys = keys.append_column("user", pa.array(user))
    keys = keys.append_column("request_moment", pa.array(request_moment))
    directions = [
        ("user", "ascending"),
        ("moment", "ascending"),
        ("request_moment", "descending"),
        ("request_id", "ascending"),
        ("position", "ascending"),
        ("event_id", "ascending"),
    ]
    places = pc.sort_indices(keys, sort_keys=directions, null_placement="at_start")  # pyright: ignore[reportAttributeAccessIssue]
    return places.to_numpy()


def _as_table(
    plain: dict[str, pa.Array],
    lists: dict[str, pa.Array],
    *,
    offsets: np.ndarray,
    schema: pa.Schema,
) -> pa.Table:
    ends = pa.array(offsets, pa.int32())
    columns = [
        plain[field.name]
        if field.name in plain
        else pa.ListArray.from_arrays(ends, _flat(lists[field.name], field.type.value_type))
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)


def _flat(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole.cast(kind)


def _run_codes(keys: pa.ChunkedArray) -> np.ndarray:
    """Number the runs of equal keys from 0."""
    whole = keys.combine_chunks()
    changed = pc.not_equal(whole[1:], whole[:-1]).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    return np.concatenate([[0], np.cumsum(changed)]) if len(whole) else np.zeros(0, np.int64)


def _split_of(times: pa.ChunkedArray, cut: Cut) -> np.ndarray:
    """Return each event's place in `SPLITS`, `_UNDATED` for one without a time."""
    micros = times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    filled = pc.fill_null(micros, np.iinfo(np.int64).min).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    split = (filled >= cut.validation_start_micros).astype(np.int64)
    split += filled >= cut.test_start_micros
    return np.where(pc.is_null(micros).to_numpy(), _UNDATED, split)  # pyright: ignore[reportAttributeAccessIssue]


def _requests(events: pa.Table, user: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Return, per event, its request's first moment and the split of that.

    A request's split is that of its first dated event, which is its first moment: undated events
    are requests of their own.
    """
    moment = events["moment"].to_numpy()
    request = events["request_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    pair = user * (int(request.max(initial=0)) + 1) + request
    order = np.lexsort((moment, pair))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(pair)))
    first = np.empty_like(moment)
    first[order] = np.repeat(moment[order][starts], sizes)
    split = (first >= cut.validation_start_micros).astype(np.int64)
    split += first >= cut.test_start_micros
    return first, split


def _bounds(user: np.ndarray, split: np.ndarray, *, max_events: int) -> _Rows:
    """Cut each user's sorted events; `user` and `split` are in that order."""
    begin = np.flatnonzero(np.diff(user, prepend=-1))
    end = np.append(begin[1:], len(user))
    places = {
        name: begin + np.add.reduceat(np.append(split < place, 0), begin)
        for place, name in enumerate(SPLITS)
        if len(begin)
    }
    if not places:
        empty = np.zeros(0, np.int64)
        return _Rows(empty, empty, empty, empty, empty, empty)
    dated, validation, test = (places[name] for name in SPLITS)
    parts = [
        _train(begin, dated, validation, max_events=max_events),
        _chunks(begin, validation, test, split=1, max_events=max_events),
        _chunks(begin, test, end, split=2, max_events=max_events),
    ]
    joined = _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.lexsort((joined.chunk, joined.split, joined.user))
    return _Rows(*(getattr(joined, name)[order] for name in _Rows.__slots__))


def _train(
    begin: np.ndarray, dated: np.ndarray, stop: np.ndarray, *, max_events: int
) -> tuple[np.ndarray, ...]:
    start = np.maximum(begin, stop - max_events)
    first = np.maximum(dated, start)
    kept = np.flatnonzero(stop > first)
    zeros = np.zeros(len(kept), np.int64)
    return kept, zeros, zeros, start[kept], first[kept], stop[kept]


def _chunks(
    begin: np.ndarray, first: np.ndarray, stop: np.ndarray, *, split: int, max_events: int
) -> tuple[np.ndarray, ...]:
    number = -(-(stop - first) // max_events)
    user = np.repeat(np.arange(len(begin)), number)
    chunk = np.arange(len(user)) - np.repeat(np.cumsum(number) - number, number)
    own = first[user] + chunk * max_events
    return (
        user,
        np.full(len(user), split),
        chunk,
        np.maximum(begin[user], own - max_events),
        own,
        np.minimum(stop[user], own + max_events),
    )


def _dense_ranks(row: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Rank the values of each row from 1; equal values share a rank and leave no gap."""
    order = np.lexsort((value, row))
    row, value = row[order], value[order]
    new_row = np.diff(row, prepend=-1) > 0
    steps = np.cumsum(new_row | (np.diff(value, prepend=0) != 0))
    first_step = np.repeat(steps[new_row], np.diff(np.append(np.flatnonzero(new_row), len(row))))
    ranks = np.empty(len(row), np.int64)
    ranks[order] = steps - first_step + 1
    return ranks


def _shifted_positions(position: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(position + 1, 0), _LAST_POSITION)
