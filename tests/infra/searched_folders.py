"""Tiny prepared folders of the models, which a search trains in seconds."""

from dataclasses import replace
from pathlib import Path

from ml.generative.prompt_ranker import fit as prompt_fit
from ml.generative.prompt_ranker import inputs as prompt_inputs
from ml.generative.prompt_ranker.recipes import toy as prompt_recipe
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fit import prepare_folder
from ml.ranking.sequence_ranker.recipes import toy
from ml.retrieval.dual_encoder import fit as retriever_fit
from ml.retrieval.dual_encoder import inputs as retriever_inputs
from ml.retrieval.dual_encoder.recipes import toy as retriever_recipe
from tests.ml.leaderboard_exam import planted_splits
from tests.ml.prompt_examples import chosen, item_columns, member_columns
from tests.ml.sequence_examples import feature_spec, item_table


def searched_ranker(folder: Path, *, epochs: int) -> Path:
    """Prepare a folder whose recipe takes 15 steps an epoch."""
    splits = planted_splits()
    recipe = toy()
    recipe = replace(
        recipe,
        model=replace(recipe.model, width=16, head_width=16),
        batches=replace(recipe.batches, events=128),
        training=replace(recipe.training, epochs=epochs),
    )
    inputs = RankerInputs(
        train=splits["train"],
        validation=splits["validation"],
        items=item_table(),
        spec=feature_spec(),
    )
    return prepare_folder(inputs, recipe, folder=folder)


def searched_prompt_ranker(folder: Path) -> Path:
    """Prepare a folder of a prompt ranker that takes three steps."""
    recipe = replace(prompt_recipe(), encoder=None, vocabulary_size=512)
    recipe = replace(recipe, training=replace(recipe.training, epochs=1, max_steps=3))
    inputs = prompt_inputs.prepare_inputs(member_columns(), item_columns(), config=recipe)
    return prompt_fit.prepare_folder(inputs, recipe, folder=folder)


def searched_retriever(folder: Path) -> Path:
    """Prepare a folder of a retriever that takes three steps."""
    recipe = replace(retriever_recipe(), encoder=None, vocabulary_size=512)
    recipe = replace(recipe, training=replace(recipe.training, epochs=1, max_steps=3))
    columns = member_columns()
    positives = chosen(columns, columns["is_positive"])
    inputs = retriever_inputs.prepare_inputs(positives, item_columns(), config=recipe)
    return retriever_fit.prepare_folder(inputs, recipe, folder=folder)
