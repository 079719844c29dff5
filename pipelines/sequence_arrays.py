"""Cut users' events into the rows of a table of sequences, many users at a time, on Arrow arrays.

sequences.py says what a row may hold. The functions here are array arithmetic over the events of
whole users: one sort, then gathers; nothing is done per user or per event in Python. Which lists a
row has is for the schema to say: a narrow one costs less.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.arrow_groups import run_codes
from pipelines.event_copies import without_copies
from pipelines.splits import SPLITS
from pipelines.timelines import FIRST_DATED_MOMENT

_UNDATED = -1
_LAST_POSITION = 63
_MICROS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Say where timelines are cut.

    Attributes:
        validation_start_micros: Start of the validation split, microseconds since 1970 in UTC.
        test_start_micros: Start of the test split.
        mature_until_micros: Last instant whose labels are final.
        session_gap_micros: Longest time between two events of one session.
        max_events: Most own events of a row; its context holds at most as many again.
    """

    validation_start_micros: int
    test_start_micros: int
    mature_until_micros: int
    session_gap_micros: int
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


def with_times(events: pa.Table) -> pa.Table:
    """Add each event's time, made from its moment; null for undated history."""
    moment = events["moment"].combine_chunks()
    is_dated = pc.greater_equal(moment, FIRST_DATED_MOMENT)  # pyright: ignore[reportAttributeAccessIssue]
    dated = pc.if_else(is_dated, moment, pa.scalar(None, pa.int64()))  # pyright: ignore[reportAttributeAccessIssue]
    return events.append_column("event_time", dated.cast(_MICROS))


def sequence_rows(events: pa.Table, *, cut: Cut, schema: pa.Schema) -> pa.Table:
    """Build the rows of whole users.

    Args:
        events: user_id, moment (long, orders the events; timelines.py), event_time, event_id and
            its event_hash (64 bits); where known request_id, position (rank or -1) and
            arrival_date; and each further column that the schema has a list or, as `user_index`,
            a value of. All events of a user must be there; users must be clustered.
        cut: Where to cut.
        schema: Columns of the outcome, in order: any of user_id, user_index, split, chunk,
            num_events and num_targets, the lists request_index, session_index and is_target,
            and lists of the events' own columns.

    Returns:
        The rows, by user, split and chunk.
    """
    events = without_copies(events)
    user = run_codes(events["user_id"])
    moment = events["moment"].to_numpy()
    micros = _event_micros(events)
    split = _split_of(micros, cut)
    request_moment = _request_moments(events, user)
    order = _in_time(events, user, request_moment)
    rows = _bounds(user[order], split[order], max_events=cut.max_events)
    lengths = rows.stop - rows.start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(offsets[-1]) - offsets[row]
    taken = order[rows.start[row] + within]
    began_here = _split_of(request_moment, cut) == split
    is_target = (split != _UNDATED) & (micros <= cut.mature_until_micros) & began_here
    target = is_target[taken] & (within >= (rows.first - rows.start)[row])
    computed = {
        "request_index": lambda: _dense_ranks(row, request_moment[taken]),
        "session_index": lambda: _session_numbers(
            _session_starts(user[order], moment[order], split[order], cut)[
                rows.start[row] + within
            ],
            offsets,
            is_dated=split[taken] != _UNDATED,
        ),
        "is_target": lambda: target,
        "position": lambda: _shifted_positions(events["position"].to_numpy()[taken]),
        "split": lambda: np.array(SPLITS, dtype=object)[rows.split],
        "chunk": lambda: rows.chunk,
        "num_events": lambda: lengths,
        "num_targets": lambda: np.bincount(row, weights=target, minlength=len(lengths)),
    }
    columns = {name: pa.array(computed[name]()) for name in schema.names if name in computed}
    of_user, of_event = pa.array(order[rows.start]), pa.array(taken)
    for field in schema:
        if field.name not in columns:
            places = of_event if pa.types.is_list(field.type) else of_user
            columns[field.name] = events[field.name].take(places)
    return _as_table(columns, offsets=offsets, schema=schema)


def _event_micros(events: pa.Table) -> np.ndarray:
    """Return each event's time, the least number for one without."""
    micros = events["event_time"].cast(_MICROS).cast(pa.int64())
    return pc.fill_null(micros, np.iinfo(np.int64).min).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]


def _in_time(events: pa.Table, user: np.ndarray, request_moment: np.ndarray) -> np.ndarray:
    """Return the places of the events by user and, within one, in the order of timelines.py.

    Few events share their user's moment; the keys that break ties are looked at for them alone.
    """
    moment = events["moment"].to_numpy()
    order = _by_user_and_moment(user, moment)
    same = (np.diff(user[order]) == 0) & (np.diff(moment[order]) == 0)
    places = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(places):
        order[places] = _broken_ties(events, order[places], user, request_moment)
    return order


def _by_user_and_moment(user: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Return the places by user and moment, in any order where both are equal.

    Where both fit into one 64-bit number, which takes a range of dates and no undated history,
    sorting that number costs a third of sorting by two keys.
    """
    if not len(user):
        return np.zeros(0, np.int64)
    first = int(moment.min())
    span = int(moment.max()) - first + 1
    if (int(user.max()) + 1) * span < 2**63:
        return np.argsort(user * span + (moment - first))
    return np.lexsort((moment, user))


def _broken_ties(
    events: pa.Table, tied: np.ndarray, user: np.ndarray, request_moment: np.ndarray
) -> np.ndarray:
    known = [name for name in ("request_id", "position", "event_id") if name in events.schema.names]
    keys = events.select(["moment", *known]).take(pa.array(tied))
    keys = keys.append_column("user", pa.array(user[tied]))
    keys = keys.append_column("request_moment", pa.array(request_moment[tied]))
    directions = [
        ("user", "ascending", "at_start"),
        ("moment", "ascending", "at_start"),
        ("request_moment", "descending", "at_start"),
        *((name, "ascending", "at_start") for name in known),
    ]
    sorted_places = pc.sort_indices(keys, sort_keys=directions)  # pyright: ignore[reportAttributeAccessIssue]
    return tied[sorted_places.to_numpy()]


def _as_table(
    columns: dict[str, pa.Array | pa.ChunkedArray], *, offsets: np.ndarray, schema: pa.Schema
) -> pa.Table:
    ends = pa.array(offsets, pa.int32())
    whole = [
        pa.ListArray.from_arrays(ends, _flat(columns[field.name], field.type.value_type))
        if pa.types.is_list(field.type)
        else columns[field.name]
        for field in schema
    ]
    return pa.table(whole, names=schema.names).cast(schema)


def _flat(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole.cast(kind)


def _split_of(micros: np.ndarray, cut: Cut) -> np.ndarray:
    """Return each event's place in `SPLITS`, `_UNDATED` for one without a time."""
    split = (micros >= cut.validation_start_micros).astype(np.int64)
    split += micros >= cut.test_start_micros
    return np.where(micros == np.iinfo(np.int64).min, _UNDATED, split)


def _request_moments(events: pa.Table, user: np.ndarray) -> np.ndarray:
    """Return, per event, its request's first moment; each event is one where none is known.

    A request's split is that of its first dated event, which is its first moment: undated events
    are requests of their own.
    """
    moment = events["moment"].to_numpy()
    if "request_id" not in events.schema.names:
        return moment
    request = events["request_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    pair = user * (int(request.max(initial=0)) + 1) + request
    order = np.lexsort((moment, pair))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(pair)))
    first = np.empty_like(moment)
    first[order] = np.repeat(moment[order][starts], sizes)
    return first


def _session_starts(
    user: np.ndarray, moment: np.ndarray, split: np.ndarray, cut: Cut
) -> np.ndarray:
    """Number the sessions of all users in one row, over events by user and time."""
    dated = split != _UNDATED
    follows = (np.diff(user, prepend=-1) == 0) & np.insert(dated[:-1], 0, False)[: len(user)]
    is_near = np.diff(moment, prepend=0) <= cut.session_gap_micros
    return np.cumsum(dated & ~(follows & is_near))


def _session_numbers(
    session: np.ndarray, offsets: np.ndarray, *, is_dated: np.ndarray
) -> np.ndarray:
    """Count the sessions of each row from 1; 0 for undated events."""
    if not len(session):
        return session
    counted = np.where(is_dated, session, np.iinfo(np.int64).max)
    first = np.minimum.reduceat(counted, offsets[:-1])
    return np.where(is_dated, session - np.repeat(first, np.diff(offsets)) + 1, 0)


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
