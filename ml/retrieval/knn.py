"""Exact top-k search by inner product, with filters.

Everything is scored, so the result equals a brute-force sort; queries go in chunks to bound the
memory. Ties go to the lower row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

# Shapes: Q queries, N items, D width, K results.
_CHUNK_QUERIES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """Hold search results, best first.

    Attributes:
        rows: Item rows, -1 where fewer than K items pass the filter.
        scores: Their scores, -inf there.
    """

    rows: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemIndex:
    """Hold the item embeddings that are searched.

    Attributes:
        items: Embeddings, float32.
        item_index: Item index of each row.
    """

    items: Tensor
    item_index: Tensor

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.items.ndim != 2 or len(self.items) != len(self.item_index):
            raise ValueError(
                f"{tuple(self.items.shape)} embeddings for {len(self.item_index)} items"
            )


def search(
    queries_QD: Tensor,
    index: ItemIndex,
    *,
    k: int,
    excluded: Sequence[Sequence[int]] | None = None,
    allowed_N: Tensor | None = None,
) -> Neighbours:
    """Find the k best items of each query.

    Args:
        queries_QD: Queries, float32.
        index: What is searched.
        k: Results per query; capped at the number of items.
        excluded: Item indices (not rows) that each query must not get, such as seen items.
        allowed_N: Boolean attribute filter over the rows, the same for all queries.

    Raises:
        ValueError: If widths or lengths differ, or k is less than 1.
    """
    if k < 1 or queries_QD.shape[-1] != index.items.shape[1]:
        raise ValueError(f"cannot search {tuple(queries_QD.shape)} queries for k = {k}")
    if excluded is not None and len(excluded) != len(queries_QD):
        raise ValueError(f"{len(excluded)} exclusion lists for {len(queries_QD)} queries")
    parts = []
    for start in range(0, len(queries_QD), _CHUNK_QUERIES):
        scores = queries_QD[start : start + _CHUNK_QUERIES] @ index.items.T
        if allowed_N is not None:
            scores = scores.masked_fill(~allowed_N, -torch.inf)
        if excluded is not None:
            hidden = excluded[start : start + _CHUNK_QUERIES]
            scores = hide_items(scores, hidden, item_index_N=index.item_index)
        parts.append(top_rows(scores, k=min(k, len(index.items))))
    if not parts:
        empty = torch.zeros(0, min(k, len(index.items)))
        return Neighbours(rows=empty.long(), scores=empty)
    return Neighbours(
        rows=torch.cat([part.rows for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
    )


def top_rows(scores_QN: Tensor, *, k: int) -> Neighbours:
    """Return the k largest scores of each row, ties to the lower column; -inf never counts."""
    scores_QK, rows_QK = torch.sort(scores_QN, dim=1, descending=True, stable=True)
    scores_QK, rows_QK = scores_QK[:, :k], rows_QK[:, :k]
    return Neighbours(rows=rows_QK.masked_fill(scores_QK == -torch.inf, -1), scores=scores_QK)


def hide_items(
    scores_QN: Tensor, excluded: Sequence[Sequence[int]], *, item_index_N: Tensor
) -> Tensor:
    """Return scores with -inf at the item indices that each query must not get."""
    largest = int(item_index_N.max()) if len(item_index_N) else 0
    row_of = torch.full((largest + 1,), -1, dtype=torch.int64)
    row_of[item_index_N.long()] = torch.arange(len(item_index_N))
    query = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
    items = np.concatenate([np.asarray(items, dtype=np.int64) for items in excluded] or [[]])
    known = (items >= 0) & (items <= largest)
    rows = row_of[torch.from_numpy(items[known].astype(np.int64))]
    queries = torch.from_numpy(query[known])
    hidden = scores_QN.clone()
    hidden[queries[rows >= 0], rows[rows >= 0]] = -torch.inf
    return hidden


def save_index(index: ItemIndex, folder: Path, *, version: dict[str, str]) -> None:
    """Write an index as safetensors.

    Args:
        index: What is searched.
        folder: Where to.
        version: What the embeddings were made with; a query must come from the same model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray] = {
        "items": index.items.numpy(),
        "item_index": index.item_index.numpy(),
    }
    save_file(tensors, folder / "index.safetensors", metadata=version)


def load_index(folder: Path) -> ItemIndex:
    """Read an index written by `save_index`."""
    tensors = load_file(folder / "index.safetensors")
    return ItemIndex(
        items=torch.from_numpy(tensors["items"]),
        item_index=torch.from_numpy(tensors["item_index"]),
    )
