"""Two optimisers that look like one: embedding tables by their own rule, the rest by another.

Whatever drives or saves an optimiser (schedules, HDET, checkpoints) sees one list of groups, the
tables' last, and one state.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from ml.training.tables.rowwise_adagrad import RowwiseAdagrad


class TableOptimizer(Optimizer):
    """Step tables by row-wise Adagrad and everything else by another optimiser."""

    def __init__(self, dense: Optimizer, tables: RowwiseAdagrad | None) -> None:
        """Join both; their groups and states are this optimiser's from now on.

        Args:
            dense: Steps what is no table; new.
            tables: Steps the tables; new. None if all tables are frozen.
        """
        self._dense, self._tables = dense, tables
        groups = [] if tables is None else tables.param_groups
        super().__init__([*dense.param_groups, *groups], {})
        self._num_dense = len(dense.param_groups)
        self._share()
        if tables is None:
            return
        for group in tables.param_groups:
            for table in group["params"]:
                tables.accumulator(table)

    def accumulator(self, table: Tensor) -> Tensor:
        """Return the accumulators of a table's rows, [L]; writing to them counts.

        Raises:
            KeyError: If the parameter is no table of this optimiser.
        """
        if self._tables is None:
            raise KeyError("all tables are frozen, so none has accumulators")
        return self._tables.accumulator(table)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step of both.

        Args:
            closure: Computes loss and gradients again, as torch's optimisers take it.

        Returns:
            The closure's loss, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._dense.step()
        if self._tables is not None:
            self._tables.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state; groups and state are new objects afterwards, shared again."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let both work on the groups and the state that are seen from outside."""
        self._dense.param_groups = self.param_groups[: self._num_dense]
        self._dense.state = self.state
        if self._tables is not None:
            self._tables.param_groups = self.param_groups[self._num_dense :]
            self._tables.state = self.state
