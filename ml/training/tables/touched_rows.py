"""What replicas of one table must tell each other when only few of its rows have changed.

`sum_sparse` is the all-reduce of sparse gradients. `TouchedRows` remembers which rows have had a
gradient since the replicas last met, so that a converge exchanges only these. It is right for an
optimiser that leaves rows without gradient alone (SGD without momentum and decay, Adagrad,
`RowwiseAdagrad`, SparseAdam); Adam's moments and weight decay move the others too, by each
replica's own learning rate, and then the whole table has to meet.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ml.training.collectives import Collectives

# Shapes: L rows of the table, T rows touched on any replica, N replicas, D width.
_ID_BYTES = 8


class TouchedRows:
    """Remember the rows of one table that may differ between its replicas."""

    def __init__(self, num_rows: int, *, device: torch.device | None = None) -> None:
        """Start with no row touched.

        Args:
            num_rows: Rows of the table.
            device: Where the table is.
        """
        self._mask_L = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def note(self, gradient: Tensor) -> None:
        """Remember the rows of one step's gradient, after the step's all-reduce if there is one.

        Args:
            gradient: Sparse in the rows, or dense; a dense one touches its rows that are not zero.

        Raises:
            ValueError: If it is the gradient of another number of rows.
        """
        if len(gradient) != len(self._mask_L):
            raise ValueError(f"a gradient of {len(gradient)} rows, not {len(self._mask_L)}")
        if gradient.is_sparse:
            self._mask_L[gradient._indices()[0]] = True
        else:
            self._mask_L |= gradient.reshape(len(gradient), -1).ne(0).any(1)

    def note_all(self) -> None:
        """Remember that every row differs, as after noise."""
        self._mask_L.fill_(True)

    @property
    def rows(self) -> Tensor:
        """Return the rows touched on this replica, sorted."""
        return self._mask_L.nonzero()[:, 0]

    def union(self, collectives: Collectives) -> Tensor:
        """Return the rows touched on any replica, sorted, [T]; an exchange, equal on all replicas.

        Few rows travel as their numbers, many as a mask of the whole table: of both ways the one
        with fewer bytes, so these are at most 8 N times the most rows touched by one replica.
        """
        own = self.rows
        most = int(collectives.maximum(torch.tensor([len(own)], device=own.device)))
        if collectives.size == 1 or most == 0:
            return own
        if collectives.size * most * _ID_BYTES >= len(self._mask_L):
            return collectives.maximum(self._mask_L.view(torch.uint8)).nonzero()[:, 0]
        padded = own.new_full((most,), -1)
        padded[: len(own)] = own
        rows = torch.unique(collectives.gather(padded))
        return rows[rows >= 0]

    def clear(self) -> None:
        """Forget the rows: the replicas have just met."""
        self._mask_L.zero_()

    def state_dict(self) -> list[int]:
        """Return the touched rows as plain values for JSON; empty right after a converge."""
        return self.rows.tolist()

    def load_state_dict(self, rows: Sequence[int]) -> None:
        """Continue with the rows of a state.

        Raises:
            ValueError: If a row is not of this table.
        """
        if rows and not 0 <= min(rows) <= max(rows) < len(self._mask_L):
            raise ValueError(
                f"the state touches rows up to {max(rows)}, the table has {len(self._mask_L)};"
                " it is of another table"
            )
        self.clear()
        self._mask_L[torch.tensor(rows, dtype=torch.long, device=self._mask_L.device)] = True


def average_rows(
    tensor: Tensor, rows_T: Tensor, collectives: Collectives, *, fit: Sequence[bool] | None = None
) -> float:
    """Replace some rows, the same on all replicas, by their mean over those that are fit.

    Args:
        tensor: The table or something of one entry per row, [L, ...].
        rows_T: The rows.
        collectives: How to reach the other replicas.
        fit: Whether each replica takes part, the others receive the mean; None for all.

    Returns:
        Largest distance of this replica's numbers from the mean, 0 if it takes no part.
    """
    if not len(rows_T):
        return 0.0
    own = tensor.detach()[rows_T]
    takes_part = fit is None or fit[collectives.rank]
    # Zero times NaN is NaN: what is left out is replaced, not multiplied.
    mean = collectives.sum(own if takes_part else torch.zeros_like(own))
    mean.div_(collectives.size if fit is None else sum(fit))
    tensor.detach()[rows_T] = mean
    return float(own.sub_(mean).abs_().max()) if takes_part else 0.0


def sum_sparse(gradient: Tensor, collectives: Collectives) -> Tensor:
    """Return the sum of sparse gradients over the replicas, coalesced and equal on all of them.

    Every replica gets all rows of all, in the order of their ranks, filled up to the longest list;
    so the bytes follow the rows of a batch, not those of the table.

    Args:
        gradient: Sparse in the rows, [L, ...]; without entries where a replica has none.
        collectives: How to reach the other replicas.

    Raises:
        ValueError: If the gradient is dense or sparse in more than its rows.
    """
    if not gradient.is_sparse or gradient.sparse_dim() != 1:
        raise ValueError("the gradient is not sparse in its rows; all-reduce it as a dense one")
    gradient = gradient.coalesce()
    if collectives.size == 1:
        return gradient
    rows, values = gradient.indices()[0], gradient.values()
    counts = collectives.gather(torch.tensor([len(rows)], device=rows.device))[:, 0].tolist()
    if not any(counts):
        return gradient
    lists = [
        _filled(collectives.gather(_padded(tensor, max(counts))), counts)
        for tensor in (rows, values)
    ]
    total = torch.sparse_coo_tensor(
        lists[0][None], lists[1], gradient.shape, check_invariants=False
    )
    return total.coalesce()


def _padded(tensor: Tensor, length: int) -> Tensor:
    """Return a tensor filled up with zeros."""
    result = tensor.new_zeros((length, *tensor.shape[1:]))
    result[: len(tensor)] = tensor
    return result


def _filled(gathered: Tensor, counts: Sequence[int]) -> Tensor:
    """Return all replicas' entries, one after the other, without what fills them up."""
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
