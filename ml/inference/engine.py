"""Prefill-only scoring: a prompt goes through the model once and its answer slot is read.

Nothing is generated, so there is no decode loop and no cache to keep. Prompts of similar length
share a batch. A score does not depend on the padding, up to rounding; for a balanced model it
depends a little on the batch, because replicas are quantised and tokens take turns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.generative.prompt_ranker.model import PromptRanker, yes_probability
from ml.inference.length_buckets import length_buckets, padded, run_bucketed
from ml.tokenizers.prompt_tokenizer import TokenRows

# Shapes: N prompts.


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Say how prompts are batched.

    Attributes:
        max_batch_tokens: Padded tokens per batch at most.
    """

    max_batch_tokens: int = 16_384

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be at least 1, got {self.max_batch_tokens}")


def score_prompts(
    model: PromptRanker, prompts: TokenRows, *, config: EngineConfig | None = None
) -> NDArray[np.float64]:
    """Return P(yes) of every prompt.

    Args:
        model: Base or balanced.
        prompts: Rows that end in the answer slot.
        config: Batching.
    """
    config = config or EngineConfig()
    device = next(model.parameters()).device
    model.eval()

    def forward(batch: dict[str, Tensor]) -> Tensor:
        return yes_probability(model({name: t.to(device) for name, t in batch.items()}).double())

    return run_bucketed(forward, prompts, max_batch_tokens=config.max_batch_tokens).numpy()


def traffic_batches(
    prompts: TokenRows,
    labels_N: NDArray[np.int64] | None = None,
    *,
    config: EngineConfig | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the engine's batches, for calibration and for measuring expert loads.

    Args:
        prompts: Rows that end in the answer slot.
        labels_N: 1 where the answer was yes, for losses.
        config: Batching.
    """
    config = config or EngineConfig()
    for rows in length_buckets(prompts.lengths, max_batch_tokens=config.max_batch_tokens):
        batch = padded(prompts, rows)
        if labels_N is not None:
            batch["labels"] = torch.from_numpy(labels_N[rows])
        yield batch
