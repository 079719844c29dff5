"""Calibrate a frozen model's probabilities afterwards, action by action, by isotonic regression.

It is fitted on validation probabilities and then frozen as a few knots per action. A group of
rows without (or with nothing but) positives would get the probability 0 (or 1), which one
mistake turns into an infinite loss. Fitted values are therefore kept within
[1 / (n + 2), (n + 1) / (n + 2)] for n rows, the rule of succession: the most that n rows of one
kind can say.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression

from ml.configuration import from_json, to_json
from ml.features import FloatArray, IntArray

# Shapes: N rows, A actions.


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionKnots:
    """Hold one action's map, linear between its knots and flat outside.

    Attributes:
        action: Name of the action.
        predicted: Probabilities of the model, strictly rising.
        calibrated: Their images, never falling, strictly within 0 and 1.
        rows: Number of rows it was fitted on.
        positives: Positives among them.
    """

    action: str
    predicted: tuple[float, ...]
    calibrated: tuple[float, ...]
    rows: int
    positives: int

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the knots are no rising map into (0, 1).
        """
        rising = all(a < b for a, b in itertools.pairwise(self.predicted))
        level = all(a <= b for a, b in itertools.pairwise(self.calibrated))
        inside = all(0 < p < 1 for p in self.calibrated)
        same = len(self.predicted) == len(self.calibrated) > 0
        if not (rising and level and inside and same):
            raise ValueError(f"the knots of {self.action!r} are damaged; fit the calibration again")


@dataclass(frozen=True, kw_only=True, slots=True)
class IsotonicCalibration:
    """Hold the maps of all actions, in the order of the model's outputs.

    Attributes:
        actions: One map per action.
    """

    actions: tuple[ActionKnots, ...]

    def apply(self, probabilities_NA: FloatArray) -> FloatArray:
        """Return the calibrated probabilities, float64 [N, A], all strictly within 0 and 1.

        Raises:
            ValueError: If the columns are not the fitted actions or a value is no probability.
        """
        probabilities_NA = _checked(probabilities_NA, len(self.actions))
        columns = [
            np.interp(probabilities_NA[:, i], knots.predicted, knots.calibrated)
            for i, knots in enumerate(self.actions)
        ]
        return np.stack(columns, axis=1)

    def save(self, path: Path) -> None:
        """Write the knots as JSON."""
        path.write_text(to_json(self))

    @classmethod
    def load(cls, path: Path) -> "IsotonicCalibration":
        """Read knots written by `save`.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If it holds something else.
        """
        return from_json(cls, path.read_text())


def fit_calibration(
    labels_NA: IntArray, probabilities_NA: FloatArray, *, actions: Sequence[str]
) -> IsotonicCalibration:
    """Fit one isotonic regression per action.

    Args:
        labels_NA: 0 or 1, of rows that the model was not trained on.
        probabilities_NA: The model's probabilities.
        actions: Names of the columns.

    Raises:
        ValueError: If shapes differ, a value is no probability, or an action has one class only.

    Source: lirank 5.4 (post-hoc calibration of a frozen base), shared-definitions 0.1.
    """
    probabilities_NA = _checked(probabilities_NA, len(actions))
    labels_NA = np.asarray(labels_NA)
    if labels_NA.shape != probabilities_NA.shape:
        raise ValueError(
            f"labels are {labels_NA.shape} and probabilities {probabilities_NA.shape}; give both "
            "for the same rows and actions"
        )
    maps = [
        _fit_action(name, labels_NA[:, i], probabilities_NA[:, i]) for i, name in enumerate(actions)
    ]
    return IsotonicCalibration(actions=tuple(maps))


def _fit_action(name: str, labels: IntArray, probabilities: FloatArray) -> ActionKnots:
    """Return the knots of one action.

    Raises:
        ValueError: If all labels are equal.
    """
    rows, positives = len(labels), int(np.sum(labels > 0))
    if not 0 < positives < rows:
        raise ValueError(
            f"{name!r} has {positives} positives in {rows} rows; calibration needs both classes"
        )
    regression = IsotonicRegression(y_min=1 / (rows + 2), y_max=(rows + 1) / (rows + 2))
    regression.fit(probabilities, labels > 0)
    return ActionKnots(
        action=name,
        predicted=tuple(np.asarray(regression.X_thresholds_).tolist()),
        calibrated=tuple(np.asarray(regression.y_thresholds_).tolist()),
        rows=rows,
        positives=positives,
    )


def _checked(probabilities_NA: FloatArray, actions: int) -> FloatArray:
    """Return float64 probabilities of the expected number of columns.

    Raises:
        ValueError: If they are not.
    """
    values = np.asarray(probabilities_NA, np.float64)
    if values.ndim != 2 or values.shape[1] != actions:
        raise ValueError(f"probabilities are {values.shape}, not [rows, {actions} actions]")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("probabilities must lie within 0 and 1; apply the sigmoid to logits first")
    return values
