"""What a ranker in training is judged by: the normalised entropy of each action on validation."""

import numpy as np
import torch

from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.metrics import EntropyTotals
from ml.training.collectives import Collectives

# Shapes: T target events, A actions.


def entropy_metrics(
    scores_TA: FloatArray,
    data: SequenceData,
    *,
    spec: FeatureSpec,
    collectives: Collectives,
    device: torch.device,
) -> dict[str, float]:
    """Return the normalised entropy of each action, summed over the replicas' shares.

    Args:
        scores_TA: Probabilities of the target events in order; NaN where another replica scored.
        data: The sequences that were scored.
        spec: Names of the actions.
        collectives: How to reach the other replicas.
        device: Where the replicas exchange tensors.

    Returns:
        `validation_ne` (primary action), `validation_loss` (mean over the actions), and
        `validation_ne_<action>`; equal on all replicas.
    """
    own = ~np.isnan(scores_TA[:, 0])
    sums = []
    for bit in range(len(spec.actions)):
        labels = data.labels(bit)[data.is_target][own]
        totals = EntropyTotals.of(labels, scores_TA[own, bit])
        sums.append([totals.weight, totals.positives, totals.loss, totals.predicted])
    summed = collectives.sum(torch.tensor(sums, dtype=torch.float64, device=device)).tolist()
    metrics, losses = {}, []
    for name, (weight, positives, loss, predicted) in zip(spec.actions, summed, strict=True):
        totals = EntropyTotals(weight=weight, positives=positives, loss=loss, predicted=predicted)
        metrics[f"validation_ne_{name}"] = totals.normalized_entropy
        losses.append(totals.log_loss)
    metrics["validation_ne"] = metrics[f"validation_ne_{spec.primary_action}"]
    metrics["validation_loss"] = sum(losses) / len(losses)
    return metrics
