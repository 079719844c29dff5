"""A tiny prepared folder of a ranker that a search can train in seconds."""

from dataclasses import replace
from pathlib import Path

from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fit import prepare_folder
from ml.ranking.sequence_ranker.recipes import toy
from tests.ml.leaderboard_exam import planted_splits
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
