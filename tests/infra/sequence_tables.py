"""Small sequences tables, written without Spark."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import WriterProperties, write_deltalake

from ml.features import EVENT_COLUMNS, NO_TIME, SPLITS, SequenceData


def sequences_table(data: SequenceData) -> pa.Table:
    """Return sequences as the columns of the sequences table that are read of it."""

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        offsets = pa.array(data.offsets, pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(values, kind, from_pandas=True))

    micros = np.where(data.time == NO_TIME, np.nan, data.time * 1e6)
    targets = np.bincount(data.event_row[data.is_target], minlength=data.num_rows)
    columns = {
        "user_index": pa.array(data.user, pa.int32()),
        "split": pa.array([SPLITS[split] for split in data.split]),
        "chunk": pa.array(np.zeros(data.num_rows), pa.int32()),
        "num_events": pa.array(data.lengths, pa.int32()),
        "num_targets": pa.array(targets, pa.int32()),
        "event_time": lists(micros, pa.int64()).cast(pa.list_(pa.timestamp("us", "UTC"))),
        "is_target": lists(data.is_target, pa.bool_()),
        "is_shuffled": lists(data.is_shuffled, pa.bool_()),
    }
    for name in ("propensity", "true_probability", "reachable_probability"):
        columns[name] = lists(getattr(data, name), pa.float64())
    for name, column in EVENT_COLUMNS.items():
        columns[column] = lists(getattr(data, name), pa.int32())
    return pa.table(columns)


def write_sequences(
    folder: Path, parts: Sequence[SequenceData], *, row_group_rows: int = 1_000_000
) -> int:
    """Append a data file for each part, in row groups of that many rows; return the version."""
    from deltalake import DeltaTable

    properties = WriterProperties(max_row_group_size=row_group_rows)
    for part in parts:
        table = sequences_table(part)
        write_deltalake(folder, table, mode="append", writer_properties=properties)
    return DeltaTable(folder).version()
