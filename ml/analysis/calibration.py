"""Compare predicted probabilities with observed rates, bin by bin."""

from dataclasses import dataclass

import numpy as np

from ml.features import FloatArray, IntArray
from ml.metrics import equal_mass_bins


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBin:
    """Hold one bin of a calibration curve.

    Attributes:
        predicted: Mean probability.
        observed: Share of positives.
        rows: Number of rows.
        error: Standard error of the observed share.
    """

    predicted: float
    observed: float
    rows: int
    error: float


def calibration_curve(
    labels: IntArray, probabilities: FloatArray, *, bins: int = 15
) -> list[CalibrationBin]:
    """Return bins of equally many rows by rising probability.

    Args:
        labels: 0 or 1.
        probabilities: Predicted.
        bins: Number of bins; fewer come back if there are fewer rows.
    """
    curve = []
    for part_labels, part in equal_mass_bins(labels, probabilities, bins=bins):
        rate = float(part_labels.mean())
        curve.append(
            CalibrationBin(
                predicted=float(part.mean()),
                observed=rate,
                rows=len(part),
                error=float(np.sqrt(rate * (1 - rate) / len(part))),
            )
        )
    return curve
