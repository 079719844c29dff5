"""Attention in which no event sees itself, its own request, or anything later."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Shapes: B sequences, H heads, S events, W head width, C candidates.


def earlier_request_mask(request_BS: Tensor) -> Tensor:
    """Say which keys each row but the first may use: earlier rows of lower request numbers.

    Args:
        request_BS: Request numbers; where requests overlap they may fall along S.

    Returns:
        visible_B1QK, boolean, Q = rows 1..S-1 and K = rows 0..S-2.
    """
    steps = max(request_BS.shape[1] - 1, 0)
    earlier = torch.ones(steps, steps, dtype=torch.bool, device=request_BS.device).tril()
    return (request_BS[:, None, 1:, None] > request_BS[:, None, None, :-1]) & earlier


def strict_attention(
    q_BHSW: Tensor, k_BHSW: Tensor, v_BHSW: Tensor, *, pad_HW: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Attend to strictly earlier rows only; a row that sees none returns the pad.

    Rotary positions must be applied before. Row n uses the keys 0..n-1, or those among them that
    `visible` allows. The square form drops the first query and the last key, so that a plain
    causal mask is strict whatever side a backend aligns it to.

    Args:
        q_BHSW: Queries.
        k_BHSW: Keys.
        v_BHSW: Values.
        pad_HW: What a row without visible keys returns.
        visible: Mask of `earlier_request_mask`; None means that every earlier row is visible.

    Returns:
        mixed_BHSW.

    Source: shared-definitions 0.4.
    """
    batch, _, steps, _ = q_BHSW.shape
    first = pad_HW[None, :, None, :].expand(batch, -1, 1, -1).to(q_BHSW.dtype)
    if steps <= 1:
        return first[:, :, :steps]
    q, k, v = q_BHSW[:, :, 1:], k_BHSW[:, :, :-1], v_BHSW[:, :, :-1]
    if visible is None:
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.cat([first, mixed], dim=2)
    sees_any = visible.any(dim=-1, keepdim=True)
    bias = torch.zeros_like(visible, dtype=q.dtype).masked_fill_(~(visible | ~sees_any), -torch.inf)
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return torch.cat([first, torch.where(sees_any, mixed, first)], dim=2)


def cached_attention(q_BHCW: Tensor, k_BHSW: Tensor, v_BHSW: Tensor, *, pad_HW: Tensor) -> Tensor:
    """Attend from candidates to a whole context, without any mask and without self.

    Args:
        q_BHCW: Queries of the candidates.
        k_BHSW: Keys of the context; S may be 0.
        v_BHSW: Values of the context.
        pad_HW: What a candidate without context returns.

    Returns:
        mixed_BHCW, equal to `strict_attention` of the candidates placed after the context.

    Source: attn-lfa-mvp 3.3.
    """
    if k_BHSW.shape[2] == 0:
        return pad_HW[None, :, None, :].expand_as(q_BHCW).to(q_BHCW.dtype)
    return scaled_dot_product_attention(q_BHCW, k_BHSW, v_BHSW)
