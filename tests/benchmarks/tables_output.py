"""Compare what the engines of the table benchmark wrote: one hash, and rows for the small tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

_LISTS = """
  user_id, num_events::INT AS num_events,
  item_index::INT[] AS item_index, category_index::INT[] AS category_index,
  [epoch_us(moment) FOR moment IN event_time::TIMESTAMPTZ[]] AS event_micros,
  action_bits::INT[] AS action_bits, session_index::INT[] AS session_index
"""


def written_files(output: Path) -> list[Path]:
    """Return the data files of a folder that an engine wrote, without Delta's log."""
    return sorted(p for p in output.rglob("*.parquet") if "_delta_log" not in p.parts)


def row_hash(files: Iterable[Path], *, memory: str = "2GiB") -> str:
    """Return a hash of all rows: of any order of rows, but of one order within the arrays.

    The sum and the exclusive or of the rows' 64-bit hashes, with the number of rows, so that
    neither a lost nor a doubled row can hide.

    Args:
        files: Parquet files of the output.
        memory: DuckDB's limit.
    """
    found = _query(
        f"""SELECT count(*), sum(h::HUGEINT) % 18446744073709551616, bit_xor(h)
        FROM (SELECT hash(rows) AS h FROM (SELECT {_LISTS} FROM read_parquet($files)) AS rows)""",
        files,
        memory=memory,
    )
    count, total, mixed = found[0]
    return f"{count}-{int(total or 0):016x}-{int(mixed or 0):016x}"


def read_rows(files: Iterable[Path]) -> list[tuple[Any, ...]]:
    """Return the rows by user: user, count, items, categories, micros, actions, sessions."""
    return _query(f"SELECT {_LISTS} FROM read_parquet($files) ORDER BY user_id", files)


def _query(text: str, files: Iterable[Path], *, memory: str = "1GiB") -> list[tuple[Any, ...]]:
    with duckdb.connect(config={"threads": 2, "memory_limit": memory}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(text, {"files": [str(path) for path in files]}).fetchall()
