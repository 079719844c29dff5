"""Score the target events of a split, in the order of the data."""

import numpy as np
import torch
from torch import nn

from ml.batches import WHOLE, Shard
from ml.features import FloatArray
from ml.ranking.pointwise_ranker.batches import PointBatches


def score(model: nn.Module, batches: PointBatches, *, shard: Shard = WHOLE) -> FloatArray:
    """Return the probability of every action of every target event.

    Args:
        model: The model, left in evaluation mode.
        batches: Batches of the split to score; their size may move the last bits.
        shard: The worker whose share is scored; other workers' events stay NaN.

    Returns:
        float32 [T, A], T target events in the order of the data's rows and events.
    """
    num_targets = int(batches.data.is_target.sum())
    scores = np.full((num_targets, batches.num_actions), np.nan, np.float32)
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for batch in batches.once(shard=shard):
            probabilities = torch.sigmoid(model(batch.to(device)).float()).cpu().numpy()
            scores[batch.place.numpy()] = probabilities
    return scores
