"""Adapters from a table's columns to the models that score them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.batches import BatchConfig
from ml.features import EVENT_COLUMNS, FeatureSpec, SequenceData
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for
from ml.ranking.sequence_ranker.training import load_ranker as load_model

_SERVING_EVENTS = 8192
_BOOL, _DOUBLE = pa.list_(pa.bool_()), pa.list_(pa.float64())
_TIME = pa.list_(pa.timestamp("us", "UTC"))


class RankerScorer:
    """Score the target events of sequences with a sequence ranker."""

    def __init__(self, model: SequenceRanker, *, spec: FeatureSpec) -> None:
        """Wrap a model in evaluation mode."""
        self._model = model
        self._spec = spec

    def score(self, columns: Mapping[str, list[Any]]) -> np.ndarray[Any, Any]:
        """Return the primary action's probability of every target event, rows in table order.

        Args:
            columns: Columns of the sequences table; one entry per row. Elements of `propensity`
                and `is_shuffled` may be null, as for candidates that have not been shown.
        """
        data = SequenceData.from_arrow(_sequences(columns))
        config = BatchConfig(events=_SERVING_EVENTS)
        batches = batches_for(self._model, data, config=config)
        return score(self._model, batches)[:, self._spec.primary_index]


def load_ranker(folder: Path) -> RankerScorer:
    """Read a sequence ranker's folder.

    Args:
        folder: Weights, configuration and feature spec.
    """
    model = load_model(folder)
    model.requires_grad_(False)
    return RankerScorer(model, spec=model.spec)


def _sequences(columns: Mapping[str, list[Any]]) -> pa.Table:
    arrays: dict[str, pa.Array] = {}
    for name in ("split", "user_index", "chunk"):
        arrays[name] = pa.array(columns[name])
    num_rows = len(columns["split"])
    for name in EVENT_COLUMNS.values():
        arrays[name] = pa.array(columns[name], type=pa.list_(pa.int64()))
    for name, kind in (("is_target", _BOOL), ("is_shuffled", _BOOL), ("propensity", _DOUBLE)):
        arrays[name] = pa.array(columns[name], type=kind)
    arrays["event_time"] = pa.array([_instants(c) for c in columns["event_time"]], type=_TIME)
    unknown = pa.array([[None] * len(columns["item_index"][row]) for row in range(num_rows)])
    for name in ("true_probability", "reachable_probability"):
        arrays[name] = unknown.cast(_DOUBLE)
    return pa.table(arrays)


def _instants(cell: Sequence[Any]) -> list[datetime | None]:
    # Texts in ISO 8601 (JSON has no times) or times; null for undated history.
    times = pd.to_datetime(pd.Series(list(cell), dtype=object), utc=True, format="ISO8601")
    return [None if pd.isna(time) else time.to_pydatetime() for time in times]
