"""Load a registered model's folder: the one module that MLflow is allowed to call for it.

A registered model is a folder of safetensors and JSON; `serving.json` names its kind, and the
table below says which function of ours reads that kind. Nothing in the folder is executed.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

CARD_FILE = "serving.json"
ALLOWED_SUFFIXES = (".json", ".safetensors")
KINDS = {
    "ranker": "infra.scorers:load_ranker",
    "retriever": "ml.retrieval.dual_encoder.serving:load_scorer",
    "prompt_ranker": "ml.generative.prompt_ranker.serving:load_scorer",
    "optimized_prompt_ranker": "ml.generative.prompt_ranker.serving:load_optimized_scorer",
}


class Scorer(Protocol):
    """A model that turns columns into scores."""

    def score(self, columns: Mapping[str, list[Any]]) -> np.ndarray[Any, Any]:
        """Return one score per request row, or per target event of each row, in order."""
        ...


class LoadedModel:
    """What MLflow calls: a data frame in, scores out."""

    def __init__(self, scorer: Scorer) -> None:
        """Wrap a scorer."""
        self._scorer = scorer

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray[Any, Any]:
        """Score the rows of a frame.

        Args:
            model_input: Columns of the model's signature.
            params: Not used; part of MLflow's interface.
        """
        columns = {str(name): list(values) for name, values in model_input.items()}
        return self._scorer.score(columns)


def check_folder(folder: Path) -> None:
    """Accept only a flat or nested folder of JSON and safetensors.

    Raises:
        ValueError: If there is another kind of file, a link, or nothing.
    """
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if not paths:
        raise ValueError(f"model folder {folder} is empty or missing")
    for path in paths:
        if path.is_symlink() or path.suffix not in ALLOWED_SUFFIXES:
            raise ValueError(
                f"model folder {folder} holds {path.relative_to(folder)}; only plain files "
                f"ending in {' or '.join(ALLOWED_SUFFIXES)} are registered or loaded"
            )


def loader_of(kind: str) -> Callable[[Path], Scorer]:
    """Return the function that reads a kind of model.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown model kind {kind!r}; known are {', '.join(sorted(KINDS))}")
    module, function = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), function)


def _load_pyfunc(path: str) -> LoadedModel:
    # MLflow finds this function by its name.
    folder = Path(path)
    check_folder(folder)
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    return LoadedModel(loader_of(card["kind"])(folder))
