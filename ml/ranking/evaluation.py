"""Judge a ranker on the held-out period: metrics per action, rivals, references, intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ml.analysis.calibration import calibration_curve
from ml.bootstrap import entropy_difference_interval, entropy_interval
from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.metrics import normalized_entropy, probability_metrics
from ml.ranking.logistic_regression import BaselineResult, fit_and_score
from ml.ranking.popularity import base_rate, popularity_baseline

MIN_POSITIVES = 200

# Shapes: T target events of the test split, A actions.


@dataclass(frozen=True, kw_only=True, slots=True)
class TestRows:
    """Hold the test split's target events of the primary action.

    Attributes:
        users: User index, [T].
        labels: 0 or 1, [T].
        true: Planted probability, NaN where unknown, [T].
        reachable: Best probability from the visible history, NaN where unknown, [T].
    """

    users: IntArray
    labels: IntArray
    true: FloatArray
    reachable: FloatArray

    @classmethod
    def of(cls, test: SequenceData, *, bit: int) -> "TestRows":
        """Read the rows from the test sequences."""
        target = test.is_target
        return cls(
            users=test.user[test.event_row][target],
            labels=test.labels(bit)[target],
            true=test.true_probability[target],
            reachable=test.reachable_probability[target],
        )

    @property
    def references(self) -> dict[str, FloatArray]:
        """Return the references that are known for every row."""
        known = {"reachable": self.reachable, "true": self.true}
        return {name: p for name, p in known.items() if len(p) and not np.isnan(p).any()}


def evaluate_ranker(
    splits: Mapping[str, SequenceData],
    probabilities_TA: FloatArray,
    *,
    items: ItemTable,
    spec: FeatureSpec,
) -> dict[str, Any]:
    """Return everything the report says about a ranker.

    Args:
        splits: Sequences of train, validation and test.
        probabilities_TA: The ranker's, for the test split's target events in order.
        items: Facts of the items, for the rivals.
        spec: Vocabulary sizes and actions.

    Returns:
        `actions` (metrics, or too few positives), `models` (NE and interval of the ranker, its
        rivals and the references), `differences` (paired, by user), `closed_fraction` of the
        distance from the base rate to the reachable reference, and `calibration`.
    """
    rows = TestRows.of(splits["test"], bit=spec.primary_index)
    regression, popularity = _rivals(splits, items=items, spec=spec)
    models = {
        "ranker": probabilities_TA[:, spec.primary_index].astype(np.float64),
        "logistic_regression": regression.probabilities,
        "popularity_position": popularity.probabilities,
        "base_rate": base_rate(splits, spec=spec, action=spec.primary_action),
        **rows.references,
    }
    rivals = [name for name in models if name not in ("ranker", *rows.references)]
    return {
        "primary": spec.primary_action,
        "users": len(np.unique(rows.users)),
        "targets": len(rows.labels),
        "actions": _actions(splits["test"], probabilities_TA, spec=spec),
        "models": {
            name: asdict(entropy_interval(rows.users, rows.labels, p)) for name, p in models.items()
        },
        "differences": {
            name: asdict(
                entropy_difference_interval(rows.users, rows.labels, models["ranker"], models[name])
            )
            for name in rivals
        },
        "closed_fraction": _closed(models, rows),
        "regression": {"strength": regression.strength, "features": regression.num_features},
        "calibration": [asdict(b) for b in calibration_curve(rows.labels, models["ranker"])],
    }


def _rivals(
    splits: Mapping[str, SequenceData], *, items: ItemTable, spec: FeatureSpec
) -> tuple[BaselineResult, BaselineResult]:
    action = spec.primary_action
    regression = fit_and_score(splits, items=items, spec=spec, action=action)
    return regression, popularity_baseline(splits, items=items, spec=spec, action=action)


def _actions(
    test: SequenceData, probabilities_TA: FloatArray, *, spec: FeatureSpec
) -> dict[str, Any]:
    users = test.user[test.event_row][test.is_target]
    found: dict[str, Any] = {}
    for bit, name in enumerate(spec.actions):
        labels = test.labels(bit)[test.is_target]
        positives = int(labels.sum())
        if positives < MIN_POSITIVES:
            found[name] = {"positives": positives, "too_few": True}
        else:
            metrics = probability_metrics(users, labels, probabilities_TA[:, bit])
            found[name] = {**metrics, "positives": positives, "too_few": False}
    return found


def _closed(models: Mapping[str, FloatArray], rows: TestRows) -> dict[str, float]:
    """Return the share of the way from NE 1 to the reachable reference that each model went."""
    if "reachable" not in models:
        return {}
    distance = 1 - normalized_entropy(rows.labels, models["reachable"])
    return {
        name: (1 - normalized_entropy(rows.labels, p)) / distance
        for name, p in models.items()
        if name not in ("reachable", "true", "base_rate")
    }


def ranker_verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline figures, and whether the ranker beats every rival.

    It does if its NE is lower and zero lies outside each paired interval.

    Args:
        result: From `evaluate_ranker`.
    """
    losing = [name for name, d in result["differences"].items() if not d["high"] < 0]
    models = result["models"]
    headline = {f"ne_{name}": found["estimate"] for name, found in models.items()}
    closed = {f"closed_fraction_{name}": v for name, v in result["closed_fraction"].items()}
    against = {f"ne_minus_{n}_high": d["high"] for n, d in result["differences"].items()}
    return {
        "headline": {**headline, **closed},
        "verdict": {
            "passed": not losing,
            "figures": {**headline, **against},
            "reason": f"not significantly below {', '.join(losing)}"
            if losing
            else "below every rival, zero outside the paired intervals",
        },
    }
