"""Embedding tables at a meeting of HDET's replicas: only rows that a gradient has reached meet.

They stay out of the flat message of the other parameters; each table costs one agreement on which
rows changed, and these rows.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ml.training.collectives import Collectives
from ml.training.tables.touched_rows import TouchedRows, average_rows

# Shapes: L rows of a table, T rows touched on any replica, D width.


class ConvergedTables:
    """Know of some parameters of an optimiser which of their rows may differ."""

    def __init__(
        self,
        optimizer: Optimizer,
        collectives: Collectives,
        touched: Mapping[Tensor, TouchedRows],
    ) -> None:
        """Check that the optimiser leaves rows without a gradient alone.

        Args:
            optimizer: Steps the tables; their accumulators are in its state.
            collectives: How to reach the other replicas.
            touched: Tables, and what remembers their rows.

        Raises:
            ValueError: If a table is not in the optimiser, or it moves all rows in every step.
        """
        self._optimizer, self._collectives = optimizer, collectives
        self._touched = dict(touched)
        self._rows: list[Tensor] = []
        groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        for table in self._touched:
            if table not in groups:
                raise ValueError("a table of `touched` is in no group of the optimiser; add it")
            group = groups[table]
            if group.get("weight_decay") or group.get("momentum") or "amsgrad" in group:
                raise ValueError(
                    f"{type(optimizer).__name__} moves rows without a gradient too, by weight decay"
                    " or momentum, so the whole table must meet; leave it out of `touched`, or step"
                    " it by RowwiseAdagrad"
                )

    def __contains__(self, parameter: Tensor) -> bool:
        """Return whether a parameter is one of the tables."""
        return parameter in self._touched

    def note(self) -> None:
        """Remember the rows of the step whose gradients are still in place."""
        for table, touched in self._touched.items():
            if table.grad is not None:
                touched.note(table.grad)

    def note_all(self) -> None:
        """Remember that every row differs."""
        for touched in self._touched.values():
            touched.note_all()

    def is_finite(self) -> bool:
        """Return whether the rows that this replica changed hold finite numbers only."""
        return all(
            bool(torch.isfinite(tensor[touched.rows]).all())
            for table, touched in self._touched.items()
            for tensor in (table.detach(), *self._moments(table))
        )

    def num_elements(self) -> tuple[int, int]:
        """Return the number of elements of the tables and of their accumulators."""
        moments = sum(m.numel() for table in self._touched for m in self._moments(table))
        return sum(table.numel() for table in self._touched), moments

    def average(self, fit: Sequence[bool], *, with_moments: bool) -> float:
        """Replace touched rows by their mean over the replicas that are fit, then forget them.

        Returns:
            Largest distance of a row's number from the mean before, 0 on a replica that is unfit.
        """
        self._rows, largest = [], 0.0
        for table, touched in self._touched.items():
            rows_T = touched.union(self._collectives)
            self._rows.append(rows_T)
            distance = average_rows(table, rows_T, self._collectives, fit=fit)
            largest = max(largest, distance)
            for moment in self._moments(table) if with_moments else []:
                average_rows(moment, rows_T, self._collectives, fit=fit)
            touched.clear()
        return largest

    def averaged(self) -> list[Tensor]:
        """Return the rows that the last `average` wrote, [T, D] of each table."""
        tables = zip(self._touched, self._rows, strict=True)
        return [table.detach()[rows_T] for table, rows_T in tables]

    def state_dict(self) -> list[list[int]]:
        """Return the touched rows of each table, as plain values; empty if there are none."""
        rows = [touched.state_dict() for touched in self._touched.values()]
        return rows if any(rows) else []

    def load_state_dict(self, rows: Sequence[Sequence[int]]) -> None:
        """Continue with the rows of a state.

        Raises:
            ValueError: If they are of other tables.
        """
        if rows and len(rows) != len(self._touched):
            raise ValueError(
                f"the state has touched rows of {len(rows)} tables, this scheduler knows"
                f" {len(self._touched)}; give the same `touched`, or start without the state"
            )
        for place, touched in enumerate(self._touched.values()):
            touched.load_state_dict(rows[place] if rows else [])

    def _moments(self, table: Tensor) -> Iterator[Tensor]:
        """Yield what the optimiser keeps for each row of a table, in a fixed order."""
        for name, value in sorted(self._optimizer.state.get(table, {}).items()):
            is_kept = isinstance(value, Tensor) and value.is_floating_point() and name != "step"
            if is_kept and value.ndim and len(value) == len(table):
                yield value
