"""Multi-task binary cross-entropy over target events."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ml.ranking.pointwise_ranker.batches import PointBatch

# Shapes: N target events, A actions.


def target_losses(logits_NA: Tensor, batch: PointBatch) -> Tensor:
    """Return losses_N: the mean over the actions, equally weighted.

    Args:
        logits_NA: Logits of every target event.
        batch: Labels.

    Source: shared-definitions 0.1, as the sequence rankers'.
    """
    losses_NA = binary_cross_entropy_with_logits(logits_NA.float(), batch.actions, reduction="none")
    return losses_NA.mean(dim=-1)


def multi_task_loss(logits_NA: Tensor, batch: PointBatch) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the number of target events it is summed over.

    Args:
        logits_NA: Logits of every target event.
        batch: Labels.
    """
    losses_N = target_losses(logits_NA, batch)
    return losses_N.sum(), torch.tensor(float(len(losses_N)), device=losses_N.device)
