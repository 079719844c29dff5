"""Multi-task binary cross-entropy over target events."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ml.batches import Batch
from ml.layers.scalars import LabelSmoothing

# Shapes: B sequences, S events, A actions.


def event_losses(
    logits_BSA: Tensor, batch: Batch, *, smoothing: LabelSmoothing | None = None
) -> Tensor:
    """Return losses_BS: the mean over the actions, times the event's weight; 0 if no target.

    Args:
        logits_BSA: Logits of every event.
        batch: Labels and the mask of targets.
        smoothing: What moves the labels towards one half; None leaves them.

    Source: attn-lfa-mvp 3.2; shared-definitions 0.1.
    """
    labels_BSA = batch.actions if smoothing is None else smoothing(batch.actions)
    loss_BSA = binary_cross_entropy_with_logits(logits_BSA.float(), labels_BSA, reduction="none")
    return loss_BSA.mean(dim=-1) * target_weights(batch)


def multi_task_loss(
    logits_BSA: Tensor, batch: Batch, *, smoothing: LabelSmoothing | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weighted loss and the weights it is summed over.

    Args:
        logits_BSA: Logits of every event.
        batch: Labels and the mask of targets.
        smoothing: What moves the labels towards one half; None leaves them.
    """
    losses_BS = event_losses(logits_BSA, batch, smoothing=smoothing)
    return losses_BS.sum(), target_weights(batch).sum()


def target_weights(batch: Batch) -> Tensor:
    """Return weights_BS of the targets, 0 elsewhere."""
    return batch.weight * batch.target
