"""Steps of the HDET bench: gradients of parts, their mean, its clipping; and what a fit found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ml.batches import Batch
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.training.flat import pack, unpack_into

WORST_ENTROPY = 1.05  # the base rate's NE is 1: a model that much worse than it has diverged


@dataclass(kw_only=True, slots=True)
class Fit:
    """Tell what one fit found.

    Attributes:
        entropies: NE by name of what was scored: the last weights, or an average of them.
        stopped: Why the training ended early, None if it did not.
        steps: Steps that were taken.
        cpu_seconds: Processor time of the training.
        probe_seconds: Of that, the time of the probes.
        trace: What the replicas did at each sync.
    """

    entropies: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None
    steps: int = 0
    cpu_seconds: float = 0.0
    probe_seconds: float = 0.0
    trace: list[dict[str, Any]] = field(default_factory=list)


def why_missed(entropy: float | None) -> str | None:
    """Return the rule by which a score counts as diverged, None if it does not."""
    if entropy is None or not math.isfinite(entropy):
        return "NE is not finite"
    return f"NE {entropy:.3f} is above {WORST_ENTROPY}" if entropy > WORST_ENTROPY else None


def backward(model: nn.Module, batch: Batch) -> tuple[float, float]:
    """Add the gradient of a part's summed loss; return the loss and the weight it sums over."""
    loss, weight = multi_task_loss(model(batch), batch)
    loss.backward()
    return float(loss.detach()), float(weight)


def gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradient of every trained parameter, 0 where none arrived."""
    found = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
    return found


def set_mean(models: Sequence[nn.Module], *, weight: float, clip_norm: float) -> None:
    """Give all models the sum of their gradients over the weight, clipped to a norm."""
    own = [gradients(model) for model in models]
    total = pack(own[0])
    for others in own[1:]:
        total += pack(others)
    mean = total / max(weight, 1.0)
    mean *= (clip_norm / (mean.norm() + 1e-6)).clamp(max=1.0)
    for tensors in own:
        unpack_into(mean, tensors)
