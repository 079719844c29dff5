"""Score the target events of sequences, in the order of the data."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ml.batches import WHOLE, Batch, SequenceBatches, Shard
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
    return of_targets(
        model,
        batches,
        compute=lambda batch: torch.sigmoid(model(batch).float()),
        width=batches.num_actions,
        shard=shard,
    )


def of_targets(
    model: nn.Module,
    batches: SequenceBatches,
    *,
    compute: Callable[[Batch], Tensor],
    width: int,
    shard: Shard = WHOLE,
) -> FloatArray:
    """Return what a model computes for every target event.

    Args:
        model: The model, left in evaluation mode.
        batches: Batches of the data.
        compute: Takes a batch on the model's device, returns [B, S, width].
        width: Numbers per event.
        shard: The worker whose share is computed; other workers' events stay NaN.

    Returns:
        float32 [T, width], target events in the order of the data's rows and events.
    """
    data = batches.data
    place = np.cumsum(data.is_target) - 1
    found = np.full((int(data.is_target.sum()), width), np.nan, np.float32)
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for batch in batches.once(shard=shard):
            values = compute(batch.to(device)).float().cpu().numpy()
            target = batch.target.numpy()
            row, step = np.nonzero(target)
            event = data.offsets[batch.row.numpy()[row]] + step
            found[place[event]] = values[target]
    return found


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
