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
    return torch.cat([first, _visible_mix((q, k, v), visible, nothing=first)], dim=2)


def cached_attention(
    q_BHCW: Tensor,
    k_BHSW: Tensor,
    v_BHSW: Tensor,
    *,
    pad_HW: Tensor,
    visible: Tensor | None = None,
) -> Tensor:
    """Attend from candidates to a context, without self.

    Args:
        q_BHCW: Queries of the candidates.
        k_BHSW: Keys of the context; S may be 0.
        v_BHSW: Values of the context.
        pad_HW: What a candidate that sees nothing returns.
        visible: Which rows of the context each candidate sees, boolean, broadcast to
            [B, H, C, S]; None means all.

    Returns:
        mixed_BHCW, equal to `strict_attention` of the candidates placed after the context.

    Source: attn-lfa-mvp 3.3.
    """
    nothing = pad_HW[None, :, None, :].to(q_BHCW.dtype)
    if k_BHSW.shape[2] == 0:
        return nothing.expand_as(q_BHCW)
    if visible is None:
        return scaled_dot_product_attention(q_BHCW, k_BHSW, v_BHSW)
    return _visible_mix((q_BHCW, k_BHSW, v_BHSW), visible, nothing=nothing)


def _visible_mix(
    streams: tuple[Tensor, Tensor, Tensor], visible: Tensor, *, nothing: Tensor
) -> Tensor:
    """Attend under a mask; a row of it that is empty returns `nothing`, with finite gradients."""
    sees_any = visible.any(dim=-1, keepdim=True)
    hidden = ~(visible | ~sees_any)
    bias = torch.zeros_like(visible, dtype=streams[0].dtype).masked_fill_(hidden, -torch.inf)
    mixed = scaled_dot_product_attention(*streams, attn_mask=bias)
    return torch.where(sees_any, mixed, nothing)
