"""Linear contenders: one logistic regression per action, on everything or on popularity alone."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from ml.features import FloatArray, SequenceData
from ml.ranking.contenders import Contender, Exam, Setting
from ml.ranking.expectation import Expectation, fit_expectation, plain_expectation
from ml.ranking.logistic_regression import (
    BLOCKS,
    POPULARITY_BLOCKS,
    LogisticRegressionConfig,
    design_matrix,
)

# Shapes: T target events, A actions.
_CHOICES = {
    "all": (BLOCKS, (0.003, 0.01, 0.1)),
    "popularity": (POPULARITY_BLOCKS, (0.01, 0.1, 1.0)),
}


def contender(*, blocks: str) -> Contender:
    """Return a contender that tries one inverse regularisation per trial.

    Args:
        blocks: "all", or "popularity" for the item's counters and the position alone.
    """
    features, strengths = _CHOICES[blocks]

    def fit(exam: Exam, setting: Setting, _folder: Path) -> "LinearScorer":
        strength = strengths[setting.trial]
        return _fit(exam, LogisticRegressionConfig(blocks=features, strengths=(strength,)))

    return fit


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearScorer:
    """Predict each action by its own regression; one of one class by its rate.

    Attributes:
        exam: What was fitted on.
        config: Features and the regularisation.
        expectation: What train says of users on average.
        models: One per action; None where train has one class.
        rates: Rate of each action in train.
        train_seconds: Wall time of the fit.
        epochs: Most iterations of a solver, each a pass over train.
    """

    exam: Exam
    config: LogisticRegressionConfig
    expectation: Expectation
    models: tuple[LogisticRegression | None, ...]
    rates: tuple[float, ...]
    train_seconds: float
    epochs: float

    @property
    def num_parameters(self) -> int:
        """Return the number of weights and intercepts that are not zero."""
        fitted = [model for model in self.models if model is not None]
        return sum(int(np.count_nonzero(model.coef_)) + 1 for model in fitted)

    def probabilities(self, data: SequenceData) -> FloatArray:
        """Return the probability of each action for the target events in order, [T, A]."""
        columns = np.empty((int(data.is_target.sum()), len(self.rates)))
        for bit, (model, rate) in enumerate(zip(self.models, self.rates, strict=True)):
            if model is None:
                columns[:, bit] = rate
                continue
            design = design_matrix(
                self.exam, data, bit=bit, expectation=self.expectation, config=self.config
            )
            columns[:, bit] = model.predict_proba(design)[:, 1]
        return columns


def _fit(exam: Exam, config: LogisticRegressionConfig) -> LinearScorer:
    began = time.perf_counter()
    train = exam.splits["train"]
    expectation = plain_expectation(train, spec=exam.spec)
    if "evidence" in config.blocks:
        expectation = fit_expectation(train, items=exam.items, spec=exam.spec)
    models: list[LogisticRegression | None] = []
    rates = []
    for bit in range(len(exam.spec.actions)):
        labels = train.labels(bit)[train.is_target]
        rate = float(labels.mean()) if len(labels) else 0.0
        rates.append(rate)
        if not 0 < rate < 1:
            models.append(None)
            continue
        design = design_matrix(exam, train, bit=bit, expectation=expectation, config=config)
        model = LogisticRegression(C=config.strengths[0], max_iter=config.max_iterations)
        models.append(model.fit(design, labels))
    passes = [int(np.max(model.n_iter_)) for model in models if model is not None]
    return LinearScorer(
        exam=exam,
        config=config,
        expectation=expectation,
        models=tuple(models),
        rates=tuple(rates),
        train_seconds=time.perf_counter() - began,
        epochs=float(max(passes, default=0)),
    )
