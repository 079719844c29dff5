"""Post-hoc calibration: by hand, in bounds, and the same after a save."""

from pathlib import Path

import numpy as np
import pytest

from ml.analysis.isotonic_calibration import ActionKnots, IsotonicCalibration, fit_calibration
from ml.metrics import calibration_error


def test_pools_the_rows_that_fall_and_stays_off_zero_and_one() -> None:
    predicted = np.array([[0.1], [0.2], [0.3], [0.4], [0.6], [0.8]])
    labels = np.array([[0], [0], [1], [0], [1], [1]])
    calibration = fit_calibration(labels, predicted, actions=["like"])
    # 0.3 and 0.4 fall, so they share 1/2; six rows bound the rest by 1/8 and 7/8
    expected = [1 / 8, 1 / 8, 0.5, 0.5, 7 / 8, 7 / 8]
    assert calibration.apply(predicted)[:, 0].tolist() == pytest.approx(expected)
    # in between it is linear, outside flat
    others = np.array([[0.0], [0.25], [0.5], [1.0]])
    assert calibration.apply(others)[:, 0].tolist() == pytest.approx([1 / 8, 0.3125, 0.6875, 7 / 8])
    knots = calibration.actions[0]
    assert (knots.action, knots.rows, knots.positives) == ("like", 6, 3)


def test_mends_each_action_on_rows_it_has_not_seen_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(120_000, 2)) * 1.5 - [0.0, 2.0]
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    distorted = 1 / (1 + np.exp(-(2 * logits - 1)))
    fitted, held = slice(0, 40_000), slice(40_000, None)
    calibration = fit_calibration(labels[fitted], distorted[fitted], actions=["click", "like"])
    calibrated = calibration.apply(distorted[held])
    for action in range(2):
        before = calibration_error(labels[held][:, action], distorted[held][:, action])
        after = calibration_error(labels[held][:, action], calibrated[:, action])
        assert before > 0.04 and after < 0.01
        order = np.argsort(distorted[held][:, action])
        assert (np.diff(calibrated[order, action]) >= 0).all()


def test_save_and_load_give_the_same_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    predicted = rng.random((500, 2))
    labels = (rng.random((500, 2)) < predicted**2).astype(np.int64)
    calibration = fit_calibration(labels, predicted, actions=["click", "share"])
    calibration.save(tmp_path / "calibration.json")
    again = IsotonicCalibration.load(tmp_path / "calibration.json")
    assert again == calibration
    assert np.array_equal(again.apply(predicted), calibration.apply(predicted))


def test_refuses_one_class_logits_and_other_shapes() -> None:
    predicted = np.full((4, 1), 0.5)
    with pytest.raises(ValueError, match="'like' has 0 positives in 4 rows"):
        fit_calibration(np.zeros((4, 1), np.int64), predicted, actions=["like"])
    with pytest.raises(ValueError, match="apply the sigmoid"):
        fit_calibration(np.array([[0], [1]]), np.array([[-1.0], [2.0]]), actions=["like"])
    with pytest.raises(ValueError, match="must lie within 0 and 1"):
        fit_calibration(np.array([[0], [1]]), np.array([[np.nan], [0.5]]), actions=["like"])
    with pytest.raises(ValueError, match="for the same rows"):
        fit_calibration(np.zeros((3, 1), np.int64), predicted, actions=["like"])
    with pytest.raises(ValueError, match=r"not \[rows, 2 actions\]"):
        fit_calibration(np.zeros((4, 1), np.int64), predicted, actions=["like", "share"])


def test_refuses_damaged_knots() -> None:
    with pytest.raises(ValueError, match="damaged"):
        ActionKnots(action="like", predicted=(0.1, 0.2), calibrated=(0.5, 0.4), rows=2, positives=1)
