"""Sequence rankers as contenders of the leaderboard."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from ml.analysis.isotonic_calibration import IsotonicCalibration, fit_calibration
from ml.features import FloatArray, SequenceData
from ml.ranking.contenders import LEARNING_RATES, Contender, Exam, Setting
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker import recipes
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import (
    batches_for,
    build_model,
    ranker_job,
)
from ml.training.checkpoint import load_model
from ml.training.loop import train

# Shapes: T target events, A actions.


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedSequenceRanker:
    """Predict with a fitted sequence ranker.

    Attributes:
        model: The model with the weights of its best epoch.
        train_seconds: Wall time of the fit.
        epochs: Passes over the train split up to the best epoch.
        calibrations: Maps fitted on validation, by the action's place; empty for none.
    """

    model: SequenceRanker
    train_seconds: float
    epochs: float
    calibrations: dict[int, IsotonicCalibration]

    @property
    def num_parameters(self) -> int:
        """Return how many numbers were fitted."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def probabilities(self, data: SequenceData) -> FloatArray:
        """Return the probability of each action for the target events in order, [T, A]."""
        return calibrated(score(self.model, batches_for(self.model, data)), self.calibrations)


def contender(
    *, recipe: str, rotation: str | None = None, calibrates_afterwards: bool = False
) -> Contender:
    """Return a contender that trains a recipe; the trial sets the learning rate.

    Args:
        recipe: Name of a recipe.
        rotation: Another rotation than the recipe's; None for its own.
        calibrates_afterwards: Whether isotonic regression is fitted on validation.

    Raises:
        ValueError: If there is no such recipe or rotation.
    """
    config = recipes.recipe(recipe)
    if rotation is not None:
        config = recipes.with_rotation(config, rotation)
    return partial(_fit, config, calibrates_afterwards)


def _fit(
    config: RankerConfig,
    calibrates_afterwards: bool,
    exam: Exam,
    setting: Setting,
    folder: Path,
) -> FittedSequenceRanker:
    """Train on train, keep the epoch that is best on validation."""
    started = time.perf_counter()
    config = with_setting(config, setting)
    inputs = RankerInputs.of(exam)
    model = build_model(config, spec=exam.spec, items=exam.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=folder)
    result = train(model, job, config.training, report=_no_report, prepare=_as_it_is)
    load_model(result.checkpoint, model)
    calibrations = {}
    if calibrates_afterwards:
        validation = score(model, batches_for(model, inputs.validation))
        calibrations = calibrations_of(exam, validation)
    return FittedSequenceRanker(
        model=model.eval(),
        train_seconds=time.perf_counter() - started,
        epochs=result.best["epoch"] + 1,
        calibrations=calibrations,
    )


def with_setting(config: RankerConfig, setting: Setting) -> RankerConfig:
    """Return the recipe with a trial's learning rate and a seed for everything random."""
    return replace(
        config,
        batches=replace(config.batches, seed=setting.seed),
        training=replace(
            config.training, learning_rate=LEARNING_RATES[setting.trial], seed=setting.seed
        ),
    )


def calibrations_of(exam: Exam, probabilities_TA: FloatArray) -> dict[int, IsotonicCalibration]:
    """Fit isotonic regression for each action that has both classes in the validation split."""
    validation = exam.splits["validation"]
    found = {}
    for bit, action in enumerate(exam.spec.actions):
        labels = validation.labels(bit)[validation.is_target][:, None]
        if 0 < labels.sum() < len(labels):
            own = probabilities_TA[:, bit : bit + 1]
            found[bit] = fit_calibration(labels, own, actions=(action,))
    return found


def calibrated(
    probabilities_TA: FloatArray, calibrations: dict[int, IsotonicCalibration]
) -> FloatArray:
    """Return the probabilities with the fitted maps applied."""
    result = np.array(probabilities_TA, np.float32)
    for bit, calibration in calibrations.items():
        result[:, bit] = calibration.apply(probabilities_TA[:, bit : bit + 1])[:, 0]
    return result


def _no_report(metrics: dict[str, float], checkpoint: Path | None) -> None:
    """Keep nothing: the result holds the history."""


def _as_it_is(model: nn.Module) -> nn.Module:
    """Leave the model on its device."""
    return model
