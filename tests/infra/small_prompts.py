"""The two prompt tables with one row each, written without a JVM."""

from datetime import date
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from infra.delta_arrow import arrow, table_path
from pipelines.contract import Table
from pipelines.tables import ITEM_PROMPTS, MEMBER_PROMPTS

_DAY = date(2026, 5, 1)
_LISTS = pa.list_(pa.int32())


def write_prompts(lake: Path, word: str) -> None:
    """Replace both tables by one row each, whose prompt ends with a word."""
    members = pa.table(
        {
            "event_id": ["e1"],
            "user_id": ["u1"],
            "split": ["validation"],
            "event_date": pa.array([_DAY], pa.date32()),
            "item_index": pa.array([1], pa.int32()),
            "item_id": ["i1"],
            "is_positive": [True],
            "for_retrieval": [False],
            "for_ranking": [True],
            "negative_item_indices": pa.array([[]], _LISTS),
            "history_item_indices": pa.array([[]], _LISTS),
            "prompt": [f"member {word}"],
        }
    )
    items = pa.table(
        {
            "item_id": ["i1"],
            "item_index": pa.array([1], pa.int32()),
            "event_date": pa.array([_DAY], pa.date32()),
            "is_catalogue": [True],
            "prompt": [f"item {word}"],
        }
    )
    for table, rows in ((MEMBER_PROMPTS, members), (ITEM_PROMPTS, items)):
        write_deltalake(str(table_path(lake, table)), rows, mode="overwrite")


def prompts_at(lake: Path, table: Table, *, version: int | None) -> list[str]:
    """Return the prompts of a version of a table, the newest for None."""
    return arrow(lake, table, version=version, columns=("prompt",))["prompt"].to_pylist()
