"""Prepare a model's training: resolve its recipe, read its tables, write its folder."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from assets.fitting import Training, code_state, data_folder, new_data, unfinished
from infra.platform import Platform

if TYPE_CHECKING:
    from assets.training import RecipeConfig


def prepared_ranker(platform: Platform, config: "RecipeConfig", *, folder: str) -> Training:
    """Prepare the sequence ranker.

    Args:
        platform: Settings and lake.
        config: What the run changes of the recipe.
        folder: Name of the training's data folder. It is kept, checkpoints included, if this very
            training began there and never came to its end, unless the run is to begin anew;
            otherwise an older one is replaced.
    """
    from assets.model_data import RANKER_TABLES, pinned, read_ranker_data, train_rows
    from ml.ranking.inputs import RankerInputs
    from ml.ranking.sequence_ranker import recipes
    from ml.ranking.sequence_ranker.fit import prepare_folder

    name, recipe = config.resolve(recipes, platform=platform)
    tables = pinned(platform, RANKER_TABLES)
    path = data_folder(platform, folder)
    training = Training(
        name="ranker",
        recipe=name,
        config=asdict(recipe),
        data=path,
        tables=tables,
        workers=platform.settings().workers,
        code=code_state("ml.ranking.sequence_ranker.fit"),
    )
    if not config.fresh and (begun := unfinished(training)) is not None:
        return begun
    data = read_ranker_data(platform, tables)
    inputs = RankerInputs(
        train=data.splits["train"],
        validation=data.splits["validation"],
        items=data.items,
        spec=data.spec,
    )
    rows = None if recipe.stream is None else train_rows(tables, recipe.stream)
    with new_data(training):
        prepare_folder(inputs, recipe, folder=path, rows=rows)
    return training


def prepared_prompt_ranker(platform: Platform, config: "RecipeConfig", *, folder: str) -> Training:
    """Prepare the sparse decoder; the arguments are those of `prepared_ranker`."""
    from assets.model_data import PROMPT_TABLES, pinned, prompt_columns
    from ml.generative.prompt_ranker import recipes
    from ml.generative.prompt_ranker.fit import prepare_folder
    from ml.generative.prompt_ranker.inputs import prepare_inputs

    settings = platform.settings()
    name, recipe = config.resolve(recipes, platform=platform)
    if settings.encoder:
        recipe = replace(recipe, encoder=settings.encoder)
    tables = pinned(platform, PROMPT_TABLES)
    path = data_folder(platform, folder)
    training = Training(
        name="prompt_ranker",
        recipe=name,
        config=asdict(recipe),
        data=path,
        tables=tables,
        workers=settings.workers,
        code=code_state("ml.generative.prompt_ranker.fit"),
    )
    if not config.fresh and (begun := unfinished(training)) is not None:
        return begun
    members, items = prompt_columns(tables, purpose="for_ranking")
    inputs = prepare_inputs(members, items, config=recipe)
    with new_data(training):
        prepare_folder(inputs, recipe, folder=path)
    return training


def prepared_retriever(platform: Platform, config: "RecipeConfig", *, folder: str) -> Training:
    """Prepare the dual encoder; the arguments are those of `prepared_ranker`."""
    from assets.model_data import PROMPT_TABLES, pinned, prompt_columns
    from ml.retrieval.dual_encoder import recipes
    from ml.retrieval.dual_encoder.fit import prepare_folder
    from ml.retrieval.dual_encoder.inputs import prepare_inputs

    settings = platform.settings()
    name, recipe = config.resolve(recipes, platform=platform)
    if settings.encoder:
        recipe = replace(recipe, encoder=settings.encoder)
    if (checkpoint := settings.language_model) is not None:
        model_config = replace(recipe.model, checkpoint=checkpoint)
        recipe = replace(recipe, model=model_config, tokenizer=checkpoint)
    tables = pinned(platform, PROMPT_TABLES)
    path = data_folder(platform, folder)
    training = Training(
        name="retriever",
        recipe=name,
        config=asdict(recipe),
        data=path,
        tables=tables,
        workers=settings.workers,
        code=code_state("ml.retrieval.dual_encoder.fit"),
        is_elastic=False,  # its candidates are pooled over the workers
    )
    if not config.fresh and (begun := unfinished(training)) is not None:
        return begun
    members, items = prompt_columns(tables, purpose="for_retrieval")
    inputs = prepare_inputs(members, items, config=recipe)
    with new_data(training):
        prepare_folder(inputs, recipe, folder=path)
    return training


PREPARED = {
    "ranker": prepared_ranker,
    "prompt_ranker": prepared_prompt_ranker,
    "retriever": prepared_retriever,
}
