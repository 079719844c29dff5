"""Adagrad with one accumulator per row: the optimiser of embedding tables.

For a row w of width D with gradient g, and its accumulator s, which starts at `initial`:
    s <- s + (g . g) / D
    w <- w - lr g / (sqrt(s) + eps)
A row without gradient does not move and keeps its accumulator, so a step costs as much as the rows
that the batch has touched, and the state is 1 / D of the table instead of twice the table (Adam).

Source: Duchi, Hazan, Singer 2011 (JMLR 12) is the diagonal form, with an accumulator per
coordinate; the row-wise form is that of DLRM (Naumov et al. 2019, arXiv 1906.00091) and of FBGEMM's
exact row-wise Adagrad ("exact": a row that stands several times in a batch is summed first).
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

# Shapes: T rows that a gradient touches, L rows of the parameter, D width.
_STATE = "sum"


class RowwiseAdagrad(Optimizer):
    """Step rows by their own history; takes sparse and dense gradients.

    The rows are the first dimension; a vector's rows are its coordinates, for which this is plain
    Adagrad. The state is one tensor per parameter, so a checkpoint of tensors can hold it.
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.01, *, eps: float = 1e-8, initial: float = 0.0
    ) -> None:
        """Check the settings; accumulators are made when first needed.

        Args:
            params: Parameters or groups; embedding tables, replicated or sharded.
            lr: Learning rate.
            eps: Added to the root, greater than zero.
            initial: First value of the accumulators.

        Raises:
            ValueError: If a value is out of range, a group asks for weight decay, or a parameter is
                neither float32 nor float64.
        """
        if lr < 0 or eps <= 0 or initial < 0:
            raise ValueError(
                f"lr and initial must not be below 0 and eps must be above, got {lr}, {initial},"
                f" {eps}"
            )
        super().__init__(params, {"lr": lr, "eps": eps, "initial": initial})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Raises:
            ValueError: If the group asks for weight decay, or holds numbers of 16 bits.
        """
        if param_group.get("weight_decay"):
            raise ValueError(
                "row-wise Adagrad has no weight decay: it would move every row in every step; set"
                " the group's weight_decay to 0"
            )
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"row-wise Adagrad sums squares, {parameter.dtype} would lose them; keep the"
                    " table in float32"
                )

    def accumulator(self, parameter: Tensor) -> Tensor:
        """Return the accumulators of a parameter's rows, [L]; writing to them counts.

        Raises:
            KeyError: If the parameter is not in this optimiser.
        """
        state = self.state[parameter]
        if _STATE not in state:
            for group in self.param_groups:
                if any(parameter is member for member in group["params"]):
                    state[_STATE] = parameter.new_full(
                        (len(parameter),), group["initial"], requires_grad=False
                    )
                    return state[_STATE]
            del self.state[parameter]
            raise KeyError("the parameter is in no group of this optimiser")
        return state[_STATE]

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the rows that have a gradient.

        Args:
            closure: Computes loss and gradients again, as torch's optimisers take it.

        Returns:
            The closure's loss, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = _sparse_update if parameter.grad.is_sparse else _dense_update
                update(parameter, self.accumulator(parameter), lr=group["lr"], eps=group["eps"])
        return loss


def _sparse_update(parameter: Tensor, sums_L: Tensor, *, lr: float, eps: float) -> None:
    """Move the rows of a sparse gradient.

    Raises:
        ValueError: If the gradient is sparse in more than its rows.
    """
    assert parameter.grad is not None
    gradient = parameter.grad.coalesce()
    if gradient.sparse_dim() != 1:
        raise ValueError(
            f"a gradient sparse in {gradient.sparse_dim()} dimensions is not one of rows; use a"
            " dense one"
        )
    rows_T, values = gradient.indices()[0], gradient.values()
    sums_T = sums_L[rows_T] + _mean_square(values)
    sums_L[rows_T] = sums_T
    moved = parameter.index_select(0, rows_T).sub_(_scaled(values, sums_T, eps=eps), alpha=lr)
    parameter.index_copy_(0, rows_T, moved)


def _dense_update(parameter: Tensor, sums_L: Tensor, *, lr: float, eps: float) -> None:
    """Move all rows; those whose gradient is zero stay where they are."""
    assert parameter.grad is not None
    sums_L += _mean_square(parameter.grad)
    parameter.add_(_scaled(parameter.grad, sums_L, eps=eps), alpha=-lr)


def _mean_square(gradient: Tensor) -> Tensor:
    """Return the mean square of each row."""
    squares = gradient.square()
    return squares.flatten(1).mean(1) if squares.ndim > 1 else squares


def _scaled(gradient: Tensor, sums: Tensor, *, eps: float) -> Tensor:
    """Return each row over the root of its sum."""
    roots = sums.sqrt().add_(eps)
    return gradient / roots.reshape(-1, *[1] * (gradient.ndim - 1))
