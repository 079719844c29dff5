"""Small point-wise models and batches."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ml.features import FloatArray, SequenceData
from ml.ranking.pointwise_ranker.batches import PointBatch, PointBatches
from ml.ranking.pointwise_ranker.config import (
    PointBatchConfig,
    PointwiseConfig,
    PointwiseRecipe,
)
from ml.ranking.pointwise_ranker.model import PointwiseRanker
from ml.ranking.pointwise_ranker.score import score
from ml.ranking.pointwise_ranker.training import build_model, target_batches
from ml.training.config import TrainConfig
from tests.ml.sequence_examples import expectation, feature_spec, item_table

RATES = (0.5, 0.4, 0.6)
ALL_IN_ONE = 1_000_000


def small_recipe(
    *, history_length: int = 8, targets: int = ALL_IN_ONE, **model: Any
) -> PointwiseRecipe:
    """Return a recipe of small widths without dropout."""
    sizes: dict[str, Any] = {"item_width": 8, "action_width": 4, "context_width": 2}
    sizes |= {"hidden_widths": (16, 8), "attention_width": 8, "dropout_fraction": 0.0}
    return PointwiseRecipe(
        model=PointwiseConfig(**(sizes | model)),
        batches=PointBatchConfig(targets=targets, history_length=history_length),
        training=TrainConfig(epochs=2, precision="float32"),
    )


def small_model(recipe: PointwiseRecipe) -> PointwiseRanker:
    """Return a model in evaluation mode whose every parameter is random."""
    model = build_model(
        recipe, spec=feature_spec(), items=item_table(), expectation=expectation(rates=RATES)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def batches_of(data: SequenceData, recipe: PointwiseRecipe, model: PointwiseRanker) -> PointBatches:
    """Return batches of sequences over the example items."""
    return target_batches(data, recipe, model=model, items=item_table())


def one_batch(data: SequenceData, recipe: PointwiseRecipe, model: PointwiseRanker) -> PointBatch:
    """Return all targets as one batch."""
    return next(batches_of(data, recipe, model).once())


def logits(data: SequenceData, recipe: PointwiseRecipe, model: PointwiseRanker) -> FloatArray:
    """Return the model's logits of all target events in order, [T, A]."""
    scores = score(model, batches_of(data, recipe, model)).astype(np.float64)
    return np.log(scores / (1 - scores))


def in_batches_of(recipe: PointwiseRecipe, targets: int) -> PointwiseRecipe:
    """Return the recipe with another batch size."""
    return replace(recipe, batches=replace(recipe.batches, targets=targets))
