"""Keep one row of each event where a user's events hold several of one id.

The winner is the row that arrived last, then the one with the latest time, then the one with the
greatest values, column by column in the order of their names, null lowest: a total order, so that
the outcome does not depend on the order of the rows.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.arrow_groups import run_codes

_FIRST_KEYS = ("arrival_date", "event_time")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that users are spread over all 64 bits


def without_copies(events: pa.Table) -> pa.Table:
    """Return the rows that win, in the order in which they stand.

    Candidates are found by their hash, which costs one sort of numbers; only these are compared
    by their ids.

    Args:
        events: user_id (each user's rows together), event_id (null for events without one, which
            have no copies), its 64-bit event_hash, and any further columns.
    """
    candidates = _with_shared_hash(events)
    if not len(candidates):
        return events
    rows = events.take(pa.array(candidates))
    pair = _pair_codes(rows)
    further = sorted(set(events.schema.names) - {"user_id", "event_id", "event_hash"})
    ranked = [name for name in _FIRST_KEYS if name in further]
    ranked += [name for name in further if name not in _FIRST_KEYS]
    keys = rows.select(ranked).append_column("pair", pa.array(pair))
    falling = ((name, "descending", "at_end") for name in ranked)
    directions = [("pair", "ascending", "at_end"), *falling]
    order = pc.sort_indices(keys, sort_keys=directions).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    is_loser = np.diff(pair[order], prepend=-1) == 0
    kept = np.ones(events.num_rows, dtype=bool)
    kept[candidates[order[is_loser]]] = False
    return events.filter(pa.array(kept))


def _with_shared_hash(events: pa.Table) -> np.ndarray:
    """Return the places of the events whose user and hash another event has as well."""
    known = np.flatnonzero(pc.is_valid(events["event_id"]).to_numpy())  # pyright: ignore[reportAttributeAccessIssue]
    user = run_codes(events["user_id"]).astype(np.uint64)
    hashes = events["event_hash"].to_numpy().view(np.uint64)[known] ^ (user[known] * _MIX)
    order = np.argsort(hashes)
    same = np.diff(hashes[order]) == 0
    shared = np.append(same, False) | np.insert(same, 0, False)
    return known[np.sort(order[shared[: len(order)]])]


def _pair_codes(rows: pa.Table) -> np.ndarray:
    """Number the pairs of user and event id."""
    user, event = run_codes(rows["user_id"]), _codes(rows["event_id"])
    return user * (int(event.max(initial=0)) + 1) + event


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    return values.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
