"""The models whose recipes can be searched: how each is read, trained and judged."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import training_functions
from infra.errors import UserError
from infra.worker_loop import WorkerContext


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchedModel:
    """Say where a model's parts are; they are imported at first use.

    Attributes:
        recipe: Module and class of the whole recipe.
        file: Module and constant of the recipe's file in a prepared folder.
        fit_module: The module that trains it; what it imports is the model's code.
        train_fn: What trains the model of a prepared folder.
    """

    recipe: tuple[str, str]
    file: tuple[str, str]
    fit_module: str
    train_fn: Callable[[Mapping[str, Any], WorkerContext], None]

    @property
    def recipe_module(self) -> Any:
        """Return the module of the named recipes."""
        return importlib.import_module(self.recipe[0])

    @property
    def recipe_class(self) -> Any:
        """Return the class of the whole recipe."""
        return getattr(self.recipe_module, self.recipe[1])

    @property
    def recipe_file(self) -> str:
        """Return the name of the recipe's file in a prepared folder."""
        return getattr(importlib.import_module(self.file[0]), self.file[1])


_MODELS = {
    "ranker": SearchedModel(
        recipe=("ml.ranking.sequence_ranker.recipes", "RankerConfig"),
        file=("ml.ranking.sequence_ranker.training", "CONFIG_FILE"),
        fit_module="ml.ranking.sequence_ranker.fit",
        train_fn=training_functions.ranker,
    ),
    "retriever": SearchedModel(
        recipe=("ml.retrieval.dual_encoder.recipes", "RetrieverConfig"),
        file=("ml.retrieval.dual_encoder.training", "RECIPE_FILE"),
        fit_module="ml.retrieval.dual_encoder.fit",
        train_fn=training_functions.retriever,
    ),
    "prompt_ranker": SearchedModel(
        recipe=("ml.generative.prompt_ranker.recipes", "PromptRankerRecipe"),
        file=("ml.generative.prompt_ranker.training", "RECIPE_FILE"),
        fit_module="ml.generative.prompt_ranker.fit",
        train_fn=training_functions.prompt_ranker,
    ),
}
MODELS = tuple(_MODELS)


def searched_model(name: str) -> SearchedModel:
    """Return a model by its asset's name.

    Raises:
        UserError: If its recipe cannot be searched.
    """
    if name not in _MODELS:
        raise UserError(f"no model {name!r} to search", remedy=f"choose one of {sorted(_MODELS)}")
    return _MODELS[name]


def prepared_recipe(name: str, data: Path) -> Any:
    """Return the whole recipe of a model's prepared folder."""
    from ml.configuration import from_json

    model = searched_model(name)
    return from_json(model.recipe_class, (data / model.recipe_file).read_text())
