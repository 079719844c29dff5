"""From summed losses to one clipped mean gradient that all replicas share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml.training.collectives import Collectives, ProcessGroupReplicas
from ml.training.flat import pack
from ml.training.norms import clip_factor, square_norm
from ml.training.tables.sparse_tables import TableGradients, Tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchanged:
    """Tell what one exchange of gradients found.

    Attributes:
        loss: Summed loss, over the replicas in shared mode.
        weight: The weight it is summed over.
        mean: Norm of the mean gradient before clipping, a scalar: what AdaScale wants of the mean
            is how long it is.
        is_finite: Whether loss and gradient are.
        own_is_finite: Whether this replica's own share of both is.
    """

    loss: float
    weight: float
    mean: Tensor
    is_finite: bool
    own_is_finite: bool


class GradientExchange:
    """Turn each replica's summed gradients into the mean gradient, in place."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        collectives: Collectives,
        is_shared: bool,
        clip_norm: float,
        tables: Tables | None = None,
    ) -> None:
        """Take the parameters.

        Args:
            parameters: What is trained, without tables.
            collectives: How to reach the other replicas.
            is_shared: Whether gradients are summed over the replicas, or each keeps its own.
            clip_norm: Largest norm of the mean gradient; clipped after the exchange, so that
                replicas that share it clip alike.
            tables: Tables of sparse gradients; their norm counts.
        """
        self._parameters = list(parameters)
        self._collectives = collectives
        self._is_shared = is_shared and collectives.size > 1
        self._clip_norm = clip_norm
        self._held: list[Tensor] = []
        self._message: Tensor | None = None
        self._views: list[Tensor] = []
        self._tables = None
        if tables is not None and tables.weights:
            self._tables = TableGradients(
                tables, collectives=collectives, is_shared=self._is_shared
            )

    def hold(self) -> list[Tensor]:
        """Put the gradients of a batch aside and return them; the next batch's start from 0.

        What is returned may change with the next call.
        """
        gradients = self._gradients()
        if not self._held:
            self._held = gradients
        elif gradients:
            torch._foreach_add_(self._held, gradients)  # pyright: ignore[reportPrivateImportUsage]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients

    def finish(self, loss: Tensor, weight: Tensor) -> Exchanged:
        """Exchange what the backward passes of a step have summed, divide by weight, clip.

        What was put aside with `hold` counts, and is forgotten.

        Args:
            loss: This replica's summed loss, a scalar.
            weight: The weight it is summed over.
        """
        self._take_back()
        gradients = self._gradients()
        are_finite = self._tables is None or self._tables.are_finite()
        sums, summed = torch.stack([loss.float(), weight.float()]), gradients
        if self._is_shared:
            message = self._filled(sums, gradients)
            _add_up(message, self._collectives)
            sums, summed = message[:2], [message[2:]]
        square = square_norm(summed).to(sums.device) / sums[1].clamp(min=1).double().square()
        if self._tables is not None:
            square = square + self._tables.exchange(sums[1])
        total, summed_weight, norm = torch.stack([*sums.double(), square.sqrt()]).tolist()
        is_finite = math.isfinite(total) and math.isfinite(norm)
        own_is_finite = is_finite or (are_finite and _all_finite([loss, weight, *gradients]))
        factor = clip_factor(norm, clip_norm=self._clip_norm)
        if gradients:
            torch._foreach_mul_(summed, factor / max(summed_weight, 1.0))  # pyright: ignore[reportPrivateImportUsage]
        if self._is_shared and gradients:
            torch._foreach_copy_(gradients, self._views)  # pyright: ignore[reportPrivateImportUsage]
        if self._tables is not None:
            self._tables.scale(factor)
        return Exchanged(
            loss=total,
            weight=summed_weight,
            mean=square.sqrt(),
            is_finite=is_finite,
            own_is_finite=own_is_finite,
        )

    def _filled(self, sums: Tensor, gradients: list[Tensor]) -> Tensor:
        """Return the message of one flat tensor, the same one each time, filled anew."""
        if self._message is None:
            self._message = pack([sums, *gradients])
            parts = self._message[2:].split([gradient.numel() for gradient in gradients])
            self._views = [p.view(g.shape) for p, g in zip(parts, gradients, strict=True)]
            return self._message
        self._message[:2] = sums
        if gradients:
            torch._foreach_copy_(self._views, gradients)  # pyright: ignore[reportPrivateImportUsage]
        return self._message

    def _take_back(self) -> None:
        """Add what was put aside to the gradients."""
        for parameter, held in zip(self._parameters, self._held, strict=bool(self._held)):
            parameter.grad = held if parameter.grad is None else parameter.grad.add_(held)
        self._held = []

    def _gradients(self) -> list[Tensor]:
        """Return the gradients in order; zeros where no batch reached a parameter."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in self._parameters if p.grad is not None]


def _add_up(message: Tensor, collectives: Collectives) -> None:
    """Replace a message by its sum, without a copy where the replicas' group carries it."""
    is_group = isinstance(collectives, ProcessGroupReplicas)
    if is_group and (message.is_cuda or dist.get_backend() != "nccl"):
        dist.all_reduce(message)
    else:
        message.copy_(collectives.sum(message))


def _all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether all elements are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
