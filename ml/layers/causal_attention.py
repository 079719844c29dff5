"""Attention in which every row sees itself and, besides, rows of earlier groups only.

A group is a request or a session; which rows may see each other inside an event (an item and what
was done to it) is for the caller's mask. Its strict sister is strict_attention.py.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Shapes: B sequences, H heads, S rows, W head width, C candidates.


def earlier_group_mask(group_BS: Tensor) -> Tensor:
    """Say which keys each row may use: itself, and earlier rows of lower group numbers.

    Args:
        group_BS: Group numbers; where groups overlap they may fall along S.

    Returns:
        visible_B1SS, boolean; no row of it is empty.
    """
    steps = group_BS.shape[1]
    earlier = torch.ones(steps, steps, dtype=torch.bool, device=group_BS.device).tril(-1)
    itself = torch.eye(steps, dtype=torch.bool, device=group_BS.device)
    return ((group_BS[:, None, :, None] > group_BS[:, None, None, :]) & earlier) | itself


def paired_mask(group_BS: Tensor) -> Tensor:
    """Return the mask of interleaved rows (item, outcome, item, outcome, ...).

    Row 2n is the item of event n, row 2n + 1 its outcome. Both see both rows of events of lower
    groups, and themselves; the outcome also sees its item.

    Args:
        group_BS: Group number of each event.

    Returns:
        visible_B1RR, boolean, R = 2S.
    """
    mask = earlier_group_mask(group_BS).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    rows = torch.arange(mask.shape[-1], device=mask.device)
    peeks = (rows[:, None] % 2 == 0) & (rows[None, :] == rows[:, None] + 1)
    return mask & ~peeks


def causal_attention(
    q_BHSW: Tensor, k_BHSW: Tensor, v_BHSW: Tensor, *, visible: Tensor | None = None
) -> Tensor:
    """Mix the values of the visible rows; None means itself and every earlier row.

    Args:
        q_BHSW: Queries, rotary positions applied.
        k_BHSW: Keys, likewise.
        v_BHSW: Values.
        visible: Mask of `earlier_group_mask` or `paired_mask`.
    """
    if visible is None:
        return scaled_dot_product_attention(q_BHSW, k_BHSW, v_BHSW, is_causal=True)
    bias = torch.zeros_like(visible, dtype=q_BHSW.dtype).masked_fill_(~visible, -torch.inf)
    return scaled_dot_product_attention(q_BHSW, k_BHSW, v_BHSW, attn_mask=bias)


def context_and_self_attention(
    q_BHCW: Tensor, own: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor]
) -> Tensor:
    """Attend from candidates to a whole context and, each, to itself, not to one another.

    The softmax over the context and the own key is one softmax; the own value is added with its
    share, so that no mask of candidates times candidates is made.

    Args:
        q_BHCW: Queries of the candidates.
        own: Keys and values of the candidates, [B, H, C, W].
        context: Keys and values of the context, [B, H, S, W]; S may be 0.

    Returns:
        mixed_BHCW, equal to `causal_attention` of the candidates placed after the context.

    Source: feed-sr 4.3.
    """
    own_key, own_value = own
    key, value = context
    scale = q_BHCW.shape[-1] ** -0.5
    q = q_BHCW * scale
    own_BHC1 = (q * own_key).sum(dim=-1, keepdim=True)
    logits = torch.cat([q @ key.transpose(-1, -2), own_BHC1], dim=-1)
    weights = torch.softmax(logits, dim=-1).to(value.dtype)
    return weights[..., :-1] @ value + weights[..., -1:] * own_value
