"""Group token rows of similar length, so that little is padded; the order is the caller's again."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.tokenizers.prompt_tokenizer import TokenRows

# Shapes: N rows, S tokens of the longest row of a batch.


def length_buckets(
    lengths_N: NDArray[np.int32], *, max_batch_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Yield groups of rows, longest first, none of more padded tokens than allowed.

    A row that is longer than the limit is a group of its own. The same lengths always give the
    same groups.

    Raises:
        ValueError: If max_batch_tokens is less than 1.
    """
    if max_batch_tokens < 1:
        raise ValueError(f"max_batch_tokens must be at least 1, got {max_batch_tokens}")
    order = np.argsort(-lengths_N.astype(np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths_N[order[start]]))
        size = max(1, max_batch_tokens // longest)
        yield order[start : start + size]
        start += size


def padded(tokens: TokenRows, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` of some rows, as wide as the longest of them."""
    lengths = torch.from_numpy(tokens.lengths[rows]).long()
    ids_BS = torch.from_numpy(tokens.ids[rows, : int(lengths.max())]).long()
    return {
        "input_ids": ids_BS,
        "attention_mask": (torch.arange(ids_BS.shape[1]) < lengths[:, None]).long(),
    }


@torch.inference_mode()
def run_bucketed(
    forward: Callable[[dict[str, Tensor]], Tensor], tokens: TokenRows, *, max_batch_tokens: int
) -> Tensor:
    """Run a function on all rows, bucket by bucket, and return its outputs in row order.

    Args:
        forward: Takes a padded batch, returns one output per row.
        tokens: The rows.
        max_batch_tokens: Padded tokens per batch at most.
    """
    parts, places = [], []
    for rows in length_buckets(tokens.lengths, max_batch_tokens=max_batch_tokens):
        parts.append(forward(padded(tokens, rows)).cpu())
        places.append(rows)
    if not parts:
        return torch.zeros(0)
    joined = torch.cat(parts)
    out = torch.empty_like(joined)
    out[torch.from_numpy(np.concatenate(places))] = joined
    return out
