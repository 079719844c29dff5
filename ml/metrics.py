"""Metrics of probabilities and of rankings; NaN where a metric is undefined, never a guess.

Labels are 0 or 1. Logarithms are natural, sums float64.
"""

from dataclasses import dataclass

import numpy as np

from ml.features import FloatArray, IntArray

PROBABILITY_FLOOR = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropyTotals:
    """Add up what the normalised entropy needs; totals of parts can be added.

    Attributes:
        weight: Summed weights.
        positives: Summed weights of the positives.
        loss: Summed weighted cross-entropy.
        predicted: Summed weighted probabilities.
    """

    weight: float = 0.0
    positives: float = 0.0
    loss: float = 0.0
    predicted: float = 0.0

    def __add__(self, other: "EntropyTotals") -> "EntropyTotals":
        """Return the totals of both parts."""
        return EntropyTotals(
            weight=self.weight + other.weight,
            positives=self.positives + other.positives,
            loss=self.loss + other.loss,
            predicted=self.predicted + other.predicted,
        )

    @classmethod
    def of(
        cls, labels: IntArray, probabilities: FloatArray, *, weights: FloatArray | None = None
    ) -> "EntropyTotals":
        """Return the totals of one part."""
        weights = np.ones(len(labels)) if weights is None else weights
        return cls(
            weight=float(weights.sum()),
            positives=float((weights * labels).sum()),
            loss=float((weights * cross_entropies(labels, probabilities)).sum()),
            predicted=float((weights * probabilities).sum()),
        )

    @property
    def log_loss(self) -> float:
        """Return the mean cross-entropy, NaN without weight."""
        return self.loss / self.weight if self.weight else float("nan")

    @property
    def normalized_entropy(self) -> float:
        """Return the cross-entropy over that of the base rate; NaN if one class is missing.

        Source: shared-definitions 0.1.
        """
        if not 0 < self.positives < self.weight:
            return float("nan")
        rate = self.positives / self.weight
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return float(self.log_loss / entropy)

    @property
    def observed_over_expected(self) -> float:
        """Return the positives over the summed probabilities, NaN if those are 0."""
        return self.positives / self.predicted if self.predicted else float("nan")


def cross_entropies(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Return each row's cross-entropy, probabilities clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(
        np.asarray(probabilities, np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR
    )
    return -np.where(np.asarray(labels) > 0, np.log(clipped), np.log1p(-clipped))


def normalized_entropy(
    labels: IntArray, probabilities: FloatArray, *, weights: FloatArray | None = None
) -> float:
    """Return the cross-entropy over that of the base rate: 1 is no better than the base rate."""
    return EntropyTotals.of(labels, probabilities, weights=weights).normalized_entropy


def log_loss(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the mean cross-entropy."""
    return EntropyTotals.of(labels, probabilities).log_loss


def auc(labels: IntArray, scores: FloatArray, *, weights: FloatArray | None = None) -> float:
    """Return P(positive above negative) + P(tie) / 2; NaN if one class is missing."""
    # A training is judged by entropies alone: its workers shall not import scikit-learn for this.
    from sklearn.metrics import roc_auc_score

    if len(labels) == 0 or np.min(labels) == np.max(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def group_auc(groups: IntArray, labels: IntArray, scores: FloatArray) -> float:
    """Return the mean AUC of the groups with both classes, weighted by their rows.

    Args:
        groups: Group of each row, usually the user.
        labels: 0 or 1.
        scores: Higher is better.

    Source: shared-definitions, metric library (weights: impressions).
    """
    from scipy.stats import rankdata

    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    group, label = group[order], np.asarray(labels)[order]
    # Ranks of (group, score) pairs: mid-ranks stay within a group, minus the rows before it.
    pair = np.cumsum(np.r_[True, (np.diff(group) > 0) | (np.diff(scores[order]) > 0)])
    count = np.bincount(group)
    rank = rankdata(pair) - (np.cumsum(count) - count)[group]
    positives = np.bincount(group, weights=label)
    negatives = count - positives
    rank_sum = np.bincount(group, weights=rank * label)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    wins = rank_sum - positives * (positives + 1) / 2
    return float(np.average(wins[both] / (positives * negatives)[both], weights=count[both]))


def calibration_error(labels: IntArray, probabilities: FloatArray, *, bins: int = 15) -> float:
    """Return the mean gap between rate and probability over bins of equal mass (ECE)."""
    gaps = [
        abs(float(part_labels.mean() - part.mean())) * len(part)
        for part_labels, part in equal_mass_bins(labels, probabilities, bins=bins)
    ]
    return sum(gaps) / len(labels) if gaps else float("nan")


def equal_mass_bins(
    labels: IntArray, probabilities: FloatArray, *, bins: int
) -> list[tuple[IntArray, FloatArray]]:
    """Return (labels, probabilities) of bins of equally many rows, by rising probability."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, bins)
    return [
        (np.asarray(labels)[part], np.asarray(probabilities)[part]) for part in parts if len(part)
    ]


def recall_at(ranks: IntArray, *, k: int) -> float:
    """Return the share of relevant items ranked within the first k.

    Args:
        ranks: Rank of each case's one relevant item, from 1; larger than any k if not retrieved.
        k: Length of the list.
    """
    return float(np.mean(np.asarray(ranks) <= k)) if len(ranks) else float("nan")


def ndcg_at(ranks: IntArray, *, k: int) -> float:
    """Return the mean of 1 / log2(rank + 1) of the relevant items ranked within the first k."""
    if not len(ranks):
        return float("nan")
    place = np.asarray(ranks, np.float64)
    return float(np.mean(np.where(place <= k, 1 / np.log2(place + 1), 0.0)))


def probability_metrics(
    users: IntArray, labels: IntArray, probabilities: FloatArray
) -> dict[str, float]:
    """Return every metric of one action's probabilities, by name."""
    totals = EntropyTotals.of(labels, probabilities)
    return {
        "ne": totals.normalized_entropy,
        "log_loss": totals.log_loss,
        "auc": auc(labels, probabilities),
        "gauc": group_auc(users, labels, probabilities),
        "ece": calibration_error(labels, probabilities),
        "observed_over_expected": totals.observed_over_expected,
        "rows": float(len(labels)),
        "positives": totals.positives,
        "users": float(len(np.unique(users))),
    }
