"""Whole groups out of a stream of Arrow batches that are sorted by the group's key."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def whole_groups(batches: Iterable[pa.RecordBatch], *, key: str) -> Iterator[pa.Table]:
    """Join batches so that no group is cut in two.

    Args:
        batches: Rows sorted (or at least clustered) by the key, whose values are never null.
        key: Name of the group's column.

    Yields:
        Tables of whole groups, in the order of the rows. A group that is spread over many
        batches is held until it is complete; everything else is passed on at once.
    """
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows == 0:
            continue
        first_of_last = _first_of_last_group(batch[key])
        if first_of_last == 0 and (not waiting or waiting[-1][key][-1] == batch[key][0]):
            waiting.append(batch)
            continue
        ready = [*waiting, batch.slice(0, first_of_last)]
        yield pa.Table.from_batches([part for part in ready if part.num_rows])
        waiting = [batch.slice(first_of_last)]
    if waiting:
        yield pa.Table.from_batches(waiting)


def clustered(rows: pa.Table, *, key: str, hashed: str) -> pa.Table:
    """Bring the rows of each key together, where rows are clustered by a hash of it.

    Costs a comparison of neighbours, and a sort only where two keys share a hash.

    Args:
        rows: Rows whose equal hashes stand together.
        key: Name of the column that shall be clustered; its values are never null.
        hashed: Name of the hash's column, which is left out of the outcome.
    """
    kept = rows.drop_columns(hashed)
    if _num_runs(rows[key]) == _num_runs(rows[hashed]):
        return kept
    return kept.sort_by(key)


def run_codes(keys: pa.ChunkedArray) -> np.ndarray:
    """Number the runs of equal keys from 0; keys are never null."""
    whole = keys.combine_chunks()
    if not len(whole):
        return np.zeros(0, np.int64)
    changed = pc.not_equal(whole[1:], whole[:-1]).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    return np.concatenate([[0], np.cumsum(changed)])


def _num_runs(keys: pa.ChunkedArray) -> int:
    whole = keys.combine_chunks()
    changed = pc.sum(pc.not_equal(whole[1:], whole[:-1]))  # pyright: ignore[reportAttributeAccessIssue]
    return min(len(whole), 1) + (changed.as_py() or 0)


def _first_of_last_group(keys: pa.Array) -> int:
    """Return where the last group of a sorted, non-empty column begins."""
    return pc.index(keys, keys[-1]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
