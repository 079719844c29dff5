"""Input examples of the registered models: a few real rows that each can score."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from infra.delta_arrow import arrow
from pipelines.tables import SEQUENCES

_EXAMPLE_ROWS = 3
_SEQUENCE_COLUMNS = (
    "split",
    "user_index",
    "chunk",
    "item_index",
    "event_time",
    "request_index",
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
    "is_target",
)


def sequence_example(lake: Path) -> pd.DataFrame:
    """Return the first rows of the validation split as a sequence ranker takes them."""
    rows = sequence_rows(lake, split="validation").head(_EXAMPLE_ROWS)
    times = [[_iso(time) for time in row] for row in rows["event_time"]]
    return rows.assign(event_time=times)  # pyright: ignore[reportArgumentType]


def sequence_rows(lake: Path, *, split: str) -> pd.DataFrame:
    """Return a split's sequences with the columns that a sequence ranker reads, as lists."""
    table = arrow(lake, SEQUENCES, columns=_SEQUENCE_COLUMNS, filters=[("split", "=", split)])
    order = [("user_index", "ascending"), ("chunk", "ascending")]
    return pd.DataFrame(table.sort_by(order).to_pylist())


def prompt_example(members: list[str], items: list[str]) -> pd.DataFrame:
    """Return the first pairs as a prompt ranker takes them."""
    return pd.DataFrame(
        {"member_prompt": members[:_EXAMPLE_ROWS], "item_prompt": items[:_EXAMPLE_ROWS]}
    )


def _iso(time: datetime | None) -> str | None:
    return None if time is None else pd.Timestamp(time).isoformat()
