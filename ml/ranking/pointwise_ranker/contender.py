"""A point-wise recipe as a contender of the leaderboard."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ml.features import FloatArray, SequenceData
from ml.ranking.contenders import LEARNING_RATES, Contender, Exam, Setting
from ml.ranking.inputs import RankerInputs
from ml.ranking.pointwise_ranker import recipes
from ml.ranking.pointwise_ranker.config import PointwiseRecipe
from ml.ranking.pointwise_ranker.model import PointwiseRanker
from ml.ranking.pointwise_ranker.score import score
from ml.ranking.pointwise_ranker.training import (
    build_model,
    item_facts,
    load_pointwise,
    pointwise_job,
    target_batches,
)
from ml.training.loop import train

# Shapes: T target events, A actions.


@dataclass(frozen=True, kw_only=True, slots=True)
class PointwiseScorer:
    """Predict with a trained point-wise ranker.

    Attributes:
        model: The model of the best epoch.
        recipe: What it was trained by.
        train_seconds: Wall time of the fit, validation included.
        epochs: Passes over the train split until the best epoch's end.
    """

    model: PointwiseRanker
    recipe: PointwiseRecipe
    train_seconds: float
    epochs: float

    @property
    def num_parameters(self) -> int:
        """Return how many numbers were fitted."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def probabilities(self, data: SequenceData) -> FloatArray:
        """Return the probability of each action for the target events in order, [T, A]."""
        facts = item_facts(
            self.model.items.static_columns.cpu().numpy(),
            num_codes=len(self.model.spec.code_sizes),
        )
        return score(self.model, target_batches(data, self.recipe, model=self.model, items=facts))


def contender(*, recipe: str) -> Contender:
    """Return a contender that trains a recipe; the trial sets the learning rate.

    Args:
        recipe: Name of a recipe.

    Raises:
        ValueError: If there is no such recipe.
    """
    return partial(_fit, recipes.recipe(recipe))


def _fit(recipe: PointwiseRecipe, exam: Exam, setting: Setting, folder: Path) -> PointwiseScorer:
    """Train with a trial's learning rate and a seed for everything random."""
    training = replace(
        recipe.training, learning_rate=LEARNING_RATES[setting.trial], seed=setting.seed
    )
    batches = replace(recipe.batches, seed=setting.seed)
    return fit_recipe(replace(recipe, batches=batches, training=training), exam, folder=folder)


def fit_recipe(recipe: PointwiseRecipe, exam: Exam, *, folder: Path) -> PointwiseScorer:
    """Train a recipe; the epoch of the lowest validation NE is kept.

    Args:
        recipe: The whole configuration.
        exam: Train and validation sequences.
        folder: Where checkpoints go.
    """
    started = time.perf_counter()
    inputs = RankerInputs.of(exam)
    model = build_model(recipe, spec=exam.spec, items=exam.items, expectation=inputs.expectation())
    job = pointwise_job(inputs, recipe, model=model, folder=folder)
    result = train(
        model, job, recipe.training, report=lambda *_: None, prepare=lambda module: module
    )
    best, _ = load_pointwise(result.checkpoint)
    return PointwiseScorer(
        model=best,
        recipe=recipe,
        train_seconds=time.perf_counter() - started,
        epochs=result.best["epoch"] + 1,
    )
