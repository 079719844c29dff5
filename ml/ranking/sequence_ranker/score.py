"""Score the target events of sequences, in the order of the data."""

import numpy as np
import torch
from torch import nn

from ml.batches import WHOLE, SequenceBatches, Shard
from ml.features import FeatureSpec, FloatArray
from ml.ranking.validation import entropy_metrics
from ml.training.collectives import Collectives


def score(model: nn.Module, batches: SequenceBatches, *, shard: Shard = WHOLE) -> FloatArray:
    """Return the probability of every action of every target event.

    Args:
        model: The model, left in evaluation mode.
        batches: Batches of the data to score; their size may move the last bits.
        shard: The worker whose share is scored; other workers' events stay NaN.

    Returns:
        float32 [T, A], T target events in the order of the data's rows and events.
    """
    data = batches.data
    place = np.cumsum(data.is_target) - 1
    scores = np.full((int(data.is_target.sum()), batches.num_actions), np.nan, np.float32)
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for batch in batches.once(shard=shard):
            probabilities = torch.sigmoid(model(batch.to(device)).float()).cpu().numpy()
            target = batch.target.numpy()
            row, step = np.nonzero(target)
            event = data.offsets[batch.row.numpy()[row]] + step
            scores[place[event]] = probabilities[target]
    return scores


def validation_metrics(
    model: nn.Module, batches: SequenceBatches, *, spec: FeatureSpec, collectives: Collectives
) -> dict[str, float]:
    """Return the normalised entropy of each action, every replica scoring its share.

    Args:
        model: The model, equal on all replicas.
        batches: Batches of the validation split.
        spec: Names of the actions.
        collectives: How to reach the other replicas.

    Returns:
        `validation_ne` (primary action), `validation_loss` (mean over the actions), and
        `validation_ne_<action>`; equal on all replicas.
    """
    shard = Shard(rank=collectives.rank, size=collectives.size)
    return entropy_metrics(
        score(model, batches, shard=shard),
        batches.data,
        spec=spec,
        collectives=collectives,
        device=next(model.parameters()).device,
    )
