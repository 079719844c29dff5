"""Retrieval without learning: popularity over a window and item-to-item nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

# Shapes: C engagements, Q queries, N catalogue items.

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Engagements:
    """Hold positive interactions of the past.

    Attributes:
        user: User index.
        item: Item index.
        time_seconds: Time, seconds since any fixed instant.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time_seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the invariants."""
        if not len(self.user) == len(self.item) == len(self.time_seconds):
            raise ValueError("user, item and time must be equally long")


def popularity_scores(
    past: Engagements,
    item_index_N: NDArray[np.int64],
    *,
    now_seconds: float,
    window_days: float | None,
) -> Tensor:
    """Count the engagements of each catalogue item in [now - window, now).

    Args:
        past: Engagements; those at or after `now_seconds` are ignored.
        item_index_N: Catalogue.
        now_seconds: When the catalogue is served.
        window_days: Length of the window; None for all time.

    Returns:
        scores_N, float32.
    """
    recent = past.time_seconds < now_seconds
    if window_days is not None:
        recent &= past.time_seconds >= now_seconds - window_days * DAY_SECONDS
    size = int(max(item_index_N.max(initial=0), past.item.max(initial=0))) + 1
    counts = np.bincount(past.item[recent], minlength=size)
    return torch.from_numpy(counts[item_index_N].astype(np.float32))


def item_similarity(
    past: Engagements, *, num_items: int, shrinkage: float = 10.0
) -> sparse.csr_matrix:
    """Return the cosine of items over the users that engaged with them, shrunk for rare pairs.

    similarity(i, j) = n_ij / (sqrt(n_i n_j) + shrinkage); the diagonal is 0.

    Args:
        past: Engagements; a user counts once per item.
        num_items: Items are 1..num_items.
        shrinkage: Added to the denominator.
    """
    users = int(past.user.max(initial=0)) + 1
    ones = np.ones(len(past.user), dtype=np.float32)
    seen = sparse.csr_matrix((ones, (past.user, past.item)), shape=(users, num_items + 1))
    seen.data[:] = 1.0
    together = (seen.T @ seen).tocoo()
    sizes = np.sqrt(np.asarray(seen.sum(axis=0)).ravel())
    scale = sizes[together.row] * sizes[together.col] + shrinkage
    values = np.where(together.row == together.col, 0.0, together.data / scale)
    shape = (num_items + 1, num_items + 1)
    return sparse.csr_matrix((values, (together.row, together.col)), shape=shape)


def item_knn_scores(
    histories: Sequence[Sequence[int]],
    similarity: sparse.csr_matrix,
    item_index_N: NDArray[np.int64],
) -> Tensor:
    """Score catalogue items by their summed similarity to each history.

    Args:
        histories: Item indices that each query's user engaged with.
        similarity: From `item_similarity`.
        item_index_N: Catalogue.

    Returns:
        scores_QN, float32.
    """
    lengths = [len(items) for items in histories]
    items = np.concatenate([np.asarray(row, dtype=np.int64) for row in histories] or [[]])
    items = items.astype(np.int64)
    known = items < similarity.shape[0]  # pyright: ignore[reportOptionalSubscript]
    query = np.repeat(np.arange(len(histories)), lengths)
    ones = np.ones(int(known.sum()), dtype=np.float32)
    shape = (len(histories), similarity.shape[0])  # pyright: ignore[reportOptionalSubscript]
    chosen = sparse.csr_matrix((ones, (query[known], items[known])), shape=shape)
    dense = cast("sparse.csr_matrix", chosen @ similarity).toarray()[:, item_index_N]
    return torch.from_numpy(np.ascontiguousarray(dense, dtype=np.float32))
