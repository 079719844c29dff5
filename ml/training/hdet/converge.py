"""The replicas' meeting: one message of tensors, averaged over those that are fit.

The parameters, and in local mode the optimiser's moments, go out as one flat tensor; besides it
go only numbers, and of tables that know which of their rows changed, these rows. The mean of equal
float32 tensors is exact for two and four replicas, elsewhere to the rounding of a sum (hdet 2.7).
"""

import math
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ml.training.collectives import Collectives
from ml.training.flat import pack
from ml.training.hdet.tables import ConvergedTables
from ml.training.tables.touched_rows import TouchedRows

# Shapes: N replicas, C numbers, T tensors.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Converger:
    """Average what an optimiser changes over the replicas."""

    def __init__(
        self,
        optimizer: Optimizer,
        collectives: Collectives,
        touched: Mapping[Tensor, TouchedRows] | None = None,
    ) -> None:
        """Remember whom to ask; nothing is exchanged.

        Args:
            optimizer: Its parameters and moments are averaged.
            collectives: How to reach the other replicas.
            touched: Tables of which only the touched rows are averaged.

        Raises:
            ValueError: If the optimiser moves rows of these tables that no gradient has touched.
        """
        self.optimizer, self.collectives = optimizer, collectives
        self.tables = ConvergedTables(optimizer, collectives, touched or {})
        self._with_moments = False
        self._buffer: Tensor | None = None
        self._views: list[Tensor] = []
        self._tensors: list[Tensor] = []

    @property
    def parameters(self) -> list[Tensor]:
        """Return all optimised parameters that meet as a whole."""
        return [p for p in self._optimized if p not in self.tables]

    @property
    def _optimized(self) -> list[Tensor]:
        """Return all optimised parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def device(self) -> torch.device:
        """Return where exchanged numbers must be."""
        return self._optimized[0].device

    def pack(self, *, with_moments: bool) -> None:
        """Copy parameters, and moments if wanted, into the message."""
        tensors = self.parameters + (self._moments() if with_moments else [])
        self._with_moments = with_moments
        detached = [tensor.detach() for tensor in tensors]
        shapes = [tensor.shape for tensor in tensors]
        if self._buffer is None or shapes != [view.shape for view in self._views]:
            self._buffer = pack(detached) if detached else torch.zeros(0, device=self.device)
            self._views = _shaped(self._buffer, tensors)
        else:
            torch._foreach_copy_(self._views, detached)  # pyright: ignore[reportPrivateImportUsage]
        self._tensors = detached

    def sizes(self) -> tuple[int, int]:
        """Return the number of elements of the parameters and of the moments."""
        count = sum(parameter.numel() for parameter in self.parameters)
        rows, accumulators = self.tables.num_elements()
        return count + rows, sum(moment.numel() for moment in self._moments()) + accumulators

    def is_finite(self) -> bool:
        """Return whether all that would be averaged is finite on this replica."""
        assert self._buffer is not None
        if not self.tables.is_finite():
            return False
        if not self._buffer.numel():
            return True
        low, high = torch.aminmax(self._buffer)
        return math.isfinite(float(low)) and math.isfinite(float(high))

    def exchange(self, numbers: Sequence[float]) -> Tensor:
        """Return every replica's numbers, float64 [N, C] on the CPU."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        return self.collectives.gather(own).cpu()

    def average(self, fit: Sequence[bool]) -> tuple[float, float]:
        """Replace packed tensors and touched rows by their mean over the replicas that are fit.

        Args:
            fit: Whether each replica takes part; the others receive the mean.

        Returns:
            Largest distance of a parameter from the mean before, over the replicas that are fit,
            and largest difference between replicas afterwards.
        """
        own = self._buffer
        assert own is not None
        takes_part = fit[self.collectives.rank]
        # Zero times NaN is NaN: what is left out is replaced, not multiplied.
        mean = self.collectives.sum(own if takes_part else torch.zeros_like(own))
        mean.div_(sum(fit))
        shares = _shaped(mean, self._views)
        torch._foreach_copy_(self._tensors, shares)  # pyright: ignore[reportPrivateImportUsage]
        count = sum(parameter.numel() for parameter in self.parameters)
        distance = 0.0
        if takes_part and count:
            distance = float(own[:count].sub_(mean[:count]).abs_().max())
        distance = max(distance, self.tables.average(fit, with_moments=self._with_moments))
        rows = self.exchange([distance, *self._checksums()])
        agree = bool((rows[:, 1:] == rows[0, 1:]).all())
        return float(rows[:, 0].max()), 0.0 if agree else self._largest_difference()

    def reset_moments(self) -> None:
        """Forget the optimiser's state of all parameters."""
        for parameter in self._optimized:
            self.optimizer.state.pop(parameter, None)

    def _moments(self) -> list[Tensor]:
        """Return what the optimiser keeps per element, such as exp_avg, in a fixed order."""
        return [
            value
            for parameter in self.parameters
            for name, value in sorted(self.optimizer.state.get(parameter, {}).items())
            if name != "step" and isinstance(value, Tensor) and value.is_floating_point()
        ]

    def _checksums(self) -> list[float]:
        """Return two numbers per parameter that are equal where its averaged bits are.

        Sums of integers do not depend on the order of summation, so that equal replicas cannot
        differ by their number of threads.
        """
        sums = []
        for tensor in (*self.parameters, *self.tables.averaged()):
            bits = tensor.detach().reshape(-1).view(_BITS[tensor.element_size()])
            sums.append(bits.sum(dtype=torch.int64))
        return [
            float(half) for total in torch.stack(sums).tolist() for half in divmod(total, 1 << 32)
        ]

    def _largest_difference(self) -> float:
        """Return max over parameters and pairs of replicas of the absolute difference."""
        flat = pack([*self.parameters, *self.tables.averaged()])
        top, bottom = self.collectives.maximum(flat), -self.collectives.maximum(-flat)
        return float((top - bottom).max())


def _shaped(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the pieces of a flat tensor in the shapes of the tensors."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def refuse_shards(optimizer: Optimizer) -> None:
    """Check that every replica holds all of the model and of the optimiser's state.

    Raises:
        ValueError: If parameters or state are sharded over the replicas.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    tensors = sys.modules.get("torch.distributed.tensor")
    is_shard = any(
        (tensors is not None and isinstance(parameter, tensors.DTensor))
        or getattr(parameter, "_is_flat_param", False)
        or getattr(parameter, "row_shards", 1) > 1
        for parameter in parameters
    )
    names = {kind.__name__ for kind in type(optimizer).__mro__}
    if is_shard or "ZeroRedundancyOptimizer" in names:
        what = "parameters" if is_shard else "the optimiser's state"
        raise ValueError(
            f"{what} are sharded over the replicas, and HDET would average shards of different "
            "values; train plain data-parallel: HdetConfig(spread_fraction=0.0, auto_lr=False)"
        )
