"""Calibration: how many tokens each expert gets and how much each expert matters.

Source: Replicate-and-Quantize; `wanda` follows the score of Sun et al. 2023 (arXiv 2306.11695)
with a root mean square in place of the norm, so that load does not leak into importance.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.inference.moe_blocks import (
    expert_inputs,
    num_experts,
    router_choices,
    silenced_expert,
    sparse_blocks,
)

if TYPE_CHECKING:
    from ml.inference.moe_blocks import StackedExperts

# Shapes: B batches, L layers, M experts, T tokens of a batch, D width, I expert width.

Batch = Mapping[str, Tensor]


@torch.no_grad()
def count_tokens(model: nn.Module, batches: Iterable[Batch]) -> NDArray[np.int64]:
    """Count the tokens that the model's own routers send to each expert; padding is left out.

    Args:
        model: Called as `model(batch)`; runs in evaluation mode.
        batches: Each with an `attention_mask` [B, S], 1 at real tokens.

    Returns:
        counts_BLM, int64.

    Raises:
        ValueError: If there is no batch.
    """
    blocks = sparse_blocks(model)
    width = num_experts(blocks[0])
    counts = []
    with router_choices(model.eval()) as record:
        for batch in batches:
            record.clear()
            model(batch)
            real = batch["attention_mask"].reshape(-1).bool()
            counts.append(
                [torch.bincount(chosen[real].reshape(-1), minlength=width) for chosen in record]
            )
    if not counts:
        raise ValueError("no batch to calibrate on")
    return np.asarray(torch.stack([torch.stack(rows) for rows in counts]).cpu())


@torch.no_grad()
def wanda_importance(model: nn.Module, batches: Iterable[Batch]) -> NDArray[np.float64]:
    """Score each expert by mean |W| * rms(input), averaged over its three matrices.

    The input of a matrix is taken over the real tokens routed to the expert. An expert without
    any token scores 0. Runs on the unmodified model.

    Returns:
        importance_LM, float64.
    """
    blocks = sparse_blocks(model)
    sums = [_SquareSums(block.experts, num_experts(block)) for block in blocks]
    with expert_inputs(model.eval()) as record:
        for batch in batches:
            record.clear()
            model(batch)
            real = batch["attention_mask"].reshape(-1).bool()
            for layer, (hidden, chosen) in enumerate(record):
                sums[layer].add(hidden[real], chosen[real])
    return np.stack([layer.importance() for layer in sums])


class _SquareSums:
    def __init__(self, experts: nn.Module, count: int) -> None:
        self.experts = cast("StackedExperts", experts)
        _, width, inner = self.experts.down_proj.shape
        self.num_tokens = [0] * count
        self.input_squares = torch.zeros(count, width, dtype=torch.float64)
        self.inner_squares = torch.zeros(count, inner, dtype=torch.float64)

    def add(self, hidden: Tensor, chosen: Tensor) -> None:
        for expert in range(len(self.num_tokens)):
            rows = hidden[(chosen == expert).any(dim=1)]
            if not len(rows):
                continue
            gate, up = nn.functional.linear(rows, self.experts.gate_up_proj[expert]).chunk(2, -1)
            inner = self.experts.act_fn(gate) * up
            self.num_tokens[expert] += len(rows)
            self.input_squares[expert] += rows.double().square().sum(dim=0).cpu()
            self.inner_squares[expert] += inner.double().square().sum(dim=0).cpu()

    def importance(self) -> NDArray[np.float64]:
        scores = np.zeros(len(self.num_tokens))
        for expert, tokens in enumerate(self.num_tokens):
            if not tokens:
                continue
            outer_rms = (self.input_squares[expert] / tokens).sqrt()
            inner_rms = (self.inner_squares[expert] / tokens).sqrt()
            gate, up = self.experts.gate_up_proj[expert].double().abs().cpu().chunk(2, dim=0)
            down = self.experts.down_proj[expert].double().abs().cpu()
            parts = [
                (gate * outer_rms).mean(),
                (up * outer_rms).mean(),
                (down * inner_rms).mean(),
            ]
            scores[expert] = float(torch.stack(parts).mean())
        return scores


@torch.no_grad()
def leave_one_out_importance(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    loss: Callable[[nn.Module, Batch], Tensor],
) -> NDArray[np.float64]:
    """Score each expert by how much the mean loss rises when its output is zeroed.

    One pass over the batches per expert and layer: for small models, or to check `wanda`.

    Args:
        model: The unmodified model, run in evaluation mode.
        batches: Calibration batches, read several times.
        loss: Mean loss of the model on one batch.

    Returns:
        importance_LM, float64; negative where the model is better without the expert.
    """
    model.eval()
    whole = _mean_loss(model, batches, loss)
    rows = []
    for layer, block in enumerate(sparse_blocks(model)):
        row = []
        for expert in range(num_experts(block)):
            with silenced_expert(model, layer=layer, expert=expert):
                row.append(_mean_loss(model, batches, loss) - whole)
        rows.append(row)
    return np.asarray(rows)


def _mean_loss(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
) -> float:
    return float(np.mean([float(loss(model, batch)) for batch in batches]))
