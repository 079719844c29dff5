"""Input examples of the registered models: a few real rows that each can score.

They are rows of users: an erasure removes them.
"""

from datetime import datetime
from pathlib import Path

import pandas as pd
import yaml

from infra.pinned_tables import PinnedTables
from pipelines.tables import SEQUENCES

_EXAMPLE_ROWS = 3
_EXAMPLE_FILES = ("input_example.json", "serving_input_example.json")
_SEQUENCE_COLUMNS = (
    "split",
    "user_index",
    "chunk",
    "item_index",
    "event_time",
    "request_index",
    "session_index",
    "action_bits",
    "dwell_bucket",
    "position",
    "surface_index",
    "propensity",
    "is_shuffled",
    "local_hour",
    "local_weekday",
    "age_bucket",
    "popularity_percentile",
    "rate_percentile",
    "item_impressions_7d",
    "item_positives_7d",
    "is_target",
)


def sequence_example(tables: PinnedTables) -> pd.DataFrame:
    """Return the first rows of the validation split as a sequence ranker takes them."""
    rows = sequence_rows(tables, split="validation").head(_EXAMPLE_ROWS)
    times = [[_iso(time) for time in row] for row in rows["event_time"]]
    return rows.assign(event_time=times)  # pyright: ignore[reportArgumentType]


def sequence_rows(tables: PinnedTables, *, split: str) -> pd.DataFrame:
    """Return a split's sequences with the columns that a sequence ranker reads, as lists."""
    table = tables.arrow(SEQUENCES, columns=_SEQUENCE_COLUMNS, filters=[("split", "=", split)])
    order = [("user_index", "ascending"), ("chunk", "ascending")]
    return pd.DataFrame(table.sort_by(order).to_pylist())


def prompt_example(members: list[str], items: list[str]) -> pd.DataFrame:
    """Return the first pairs as a prompt ranker takes them."""
    return pd.DataFrame(
        {"member_prompt": members[:_EXAMPLE_ROWS], "item_prompt": items[:_EXAMPLE_ROWS]}
    )


def drop_input_examples(artifacts: Path) -> int:
    """Remove the input examples of all stored models; a model needs none to be loaded.

    Can be repeated, and finishes what was interrupted.

    Args:
        artifacts: MLflow's artefact folder.

    Returns:
        The number of models that had one.
    """
    models = 0
    for path in sorted(artifacts.rglob("MLmodel")):
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in _EXAMPLE_FILES:
            (path.parent / name).unlink(missing_ok=True)
        if card.pop("saved_input_example_info", None) is not None:
            draft = path.with_name("MLmodel.draft")
            draft.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
            draft.replace(path)
            models += 1
    return models


def _iso(time: datetime | None) -> str | None:
    return None if time is None else pd.Timestamp(time).isoformat()
