"""A small, untrained ranker as a folder, and rows that it can score."""

from pathlib import Path

import numpy as np
import pandas as pd

from ml.configuration import to_json
from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.ranking.sequence_ranker.recipes import toy
from ml.ranking.sequence_ranker.training import CONFIG_FILE, SPEC_FILE, build_model
from ml.training.checkpoint import MODEL_FILE


def save_ranker(folder: Path) -> Path:
    """Write the ranker into a folder."""
    from safetensors.torch import save_file

    spec = FeatureSpec(
        num_items=8, actions=("click", "like"), primary_action="click", num_surfaces=2
    )
    items = ItemTable(
        tags=np.zeros((9, 1), np.int32),
        codes=np.zeros((9, 0), np.int32),
        author=np.zeros(9, np.int32),
        embedding=np.zeros((9, 0), np.float32),
        tag_names=np.array([], str),
    )
    model = build_model(toy(), spec=spec, items=items)
    save_file(model.state_dict(), folder / MODEL_FILE)
    (folder / CONFIG_FILE).write_text(to_json(toy()))
    (folder / SPEC_FILE).write_text(to_json(spec))
    return folder


def ranker_rows(num_rows: int = 3, num_events: int = 4) -> pd.DataFrame:
    """Return rows of the sequences table; the last two events of each are targets."""
    draw = np.random.default_rng(7)

    def column(high: int) -> list[list[int]]:
        return draw.integers(0, high, (num_rows, num_events)).tolist()

    steps = list(range(num_events))
    return pd.DataFrame(
        {
            "split": ["test"] * num_rows,
            "user_index": list(range(1, num_rows + 1)),
            "chunk": [0] * num_rows,
            "item_index": column(9),
            "request_index": [steps] * num_rows,
            "session_index": [steps] * num_rows,
            "action_bits": column(4),
            "dwell_bucket": column(9),
            "position": column(5),
            "surface_index": column(2),
            "propensity": [[None, 0.5, 0.25, None]] * num_rows,
            "is_shuffled": [[None, True, False, None]] * num_rows,
            "local_hour": column(24),
            "local_weekday": column(7),
            "age_bucket": column(8),
            "popularity_percentile": column(101),
            "rate_percentile": column(101),
            "item_impressions_7d": column(100),
            "item_positives_7d": column(10),
            "event_time": [[f"2026-01-0{1 + step}T08:00:00" for step in steps]] * num_rows,
            "is_target": [[step >= num_events - 2 for step in steps]] * num_rows,
        }
    )
