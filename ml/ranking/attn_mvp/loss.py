"""Multi-task binary cross-entropy over target events."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ml.batches import Batch

# Shapes: B sequences, S events, A actions.


def event_losses(logits_BSA: Tensor, batch: Batch) -> Tensor:
    """Return losses_BS: the mean over the actions, equally weighted; 0 where not a target.

    Args:
        logits_BSA: Logits of every event.
        batch: Labels and the mask of targets.

    Source: attn-lfa-mvp 3.2; shared-definitions 0.1.
    """
    loss_BSA = binary_cross_entropy_with_logits(logits_BSA.float(), batch.actions, reduction="none")
    return loss_BSA.mean(dim=-1) * batch.target


def multi_task_loss(logits_BSA: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the number of target events it is summed over.

    Args:
        logits_BSA: Logits of every event.
        batch: Labels and the mask of targets.
    """
    return event_losses(logits_BSA, batch).sum(), batch.target.sum()
