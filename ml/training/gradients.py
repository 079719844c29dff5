"""From summed losses to one clipped mean gradient that all replicas share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.training.collectives import Collectives
from ml.training.flat import pack, unpack_into
from ml.training.tables.sparse_tables import TableGradients, Tables

# The gradient's norm is kept away from 0 where it divides.
_TINY_NORM = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchanged:
    """Tell what one exchange of gradients found.

    Attributes:
        loss: Summed loss, over the replicas in shared mode.
        weight: The weight it is summed over.
        mean: The mean gradient before clipping, all parameters but tables in one flat tensor.
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
        self._tables = None
        if tables is not None and tables.weights:
            self._tables = TableGradients(
                tables, collectives=collectives, is_shared=self._is_shared
            )

    def hold(self) -> list[Tensor]:
        """Put the gradients of a batch aside and return them; the next batch's start from 0."""
        gradients = self._gradients()
        if self._held:
            torch._foreach_add_(self._held, gradients)  # pyright: ignore[reportPrivateImportUsage]
        else:
            self._held = [gradient.clone() for gradient in gradients]
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
        gradients = self._gradients()
        if self._held:
            torch._foreach_add_(gradients, self._held)  # pyright: ignore[reportPrivateImportUsage]
            self._held = []
        are_finite = self._tables is None or self._tables.are_finite()
        own = pack([torch.stack([loss.float(), weight.float()]), *gradients])
        flat = self._collectives.sum(own) if self._is_shared else own
        mean = flat[2:] / flat[1].clamp(min=1)
        norm = mean.norm()
        if self._tables is not None:
            squares = self._tables.exchange(flat[1])
            norm = (norm.double().square() + squares).sqrt().float()
        factor = (self._clip_norm / (norm + _TINY_NORM)).clamp(max=1.0)
        unpack_into(mean * factor, gradients)
        if self._tables is not None:
            self._tables.scale(factor)
        total, summed_weight = flat[:2].double().tolist()
        is_finite = bool(torch.isfinite(flat[0]) & torch.isfinite(norm))
        own_is_finite = is_finite or (are_finite and bool(torch.isfinite(own).all()))
        return Exchanged(
            loss=total,
            weight=summed_weight,
            mean=mean,
            is_finite=is_finite,
            own_is_finite=own_is_finite,
        )

    def _gradients(self) -> list[Tensor]:
        """Return the gradients in order; zeros where no batch reached a parameter."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in self._parameters if p.grad is not None]
