"""A point-wise recipe as a contender of the leaderboard."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ml.features import FloatArray, SequenceData
from ml.ranking.contenders import Contender, Exam, Setting
from ml.ranking.pointwise_ranker.config import PointwiseRecipe
from ml.ranking.pointwise_ranker.model import PointwiseRanker
from ml.ranking.pointwise_ranker.score import score
from ml.ranking.pointwise_ranker.training import (
    PointwiseData,
    build_model,
    item_facts,
    load_pointwise,
    pointwise_job,
    target_batches,
)
from ml.training.loop import train

LEARNING_RATES = (1e-3, 3e-3, 6e-3)

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


def contender(recipe: Callable[[], PointwiseRecipe]) -> Contender:
    """Return a recipe as a contender; its trials are the learning rates.

    Args:
        recipe: One of `ml.ranking.pointwise_ranker.recipes`.
    """

    def fit(exam: Exam, setting: Setting, folder: Path) -> PointwiseScorer:
        return fit_recipe(_for_setting(recipe(), setting), exam, folder=folder)

    return fit


def fit_recipe(recipe: PointwiseRecipe, exam: Exam, *, folder: Path) -> PointwiseScorer:
    """Train a recipe; the epoch of the lowest validation NE is kept.

    Args:
        recipe: The whole configuration.
        exam: Train and validation sequences.
        folder: Where checkpoints go.
    """
    started = time.perf_counter()
    inputs = PointwiseData(
        train=exam.splits["train"],
        validation=exam.splits["validation"],
        items=exam.items,
        spec=exam.spec,
    )
    model = build_model(recipe, spec=exam.spec, items=exam.items, rates=inputs.rates)
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


def _for_setting(recipe: PointwiseRecipe, setting: Setting) -> PointwiseRecipe:
    """Return the recipe with a trial's learning rate and a seed."""
    rate = LEARNING_RATES[setting.trial]
    return replace(
        recipe,
        batches=replace(recipe.batches, seed=setting.seed),
        training=replace(recipe.training, learning_rate=rate, seed=setting.seed),
    )
