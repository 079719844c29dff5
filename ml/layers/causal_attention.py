"""Attention in which every row sees itself and, besides, rows of earlier groups only.

A group is a request or a session; which rows may see each other inside an event (an item and what
was done to it) is for the caller's mask. Its strict sister is strict_attention.py.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

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


def with_own_slot(k_BHSW: Tensor, v_BHSW: Tensor) -> tuple[Tensor, Tensor]:
    """Return a context's keys and values with a slot for whichever candidate attends to them.

    The slot is one more key, which only an extra coordinate reaches, and whose value says in the
    extra coordinate that it was the slot. Kernels ask for widths that are multiples of 8, so the
    heads get up to 8 coordinates more, all zero but the first of the slot.

    Returns:
        Keys and values, [B, H, S + 1, W + E]; S may be 0.
    """
    width = k_BHSW.shape[-1]
    extra = 8 - width % 8
    key, value = (pad(x, (0, extra, 0, 1)) for x in (k_BHSW, v_BHSW))
    key[:, :, -1, width] = 1.0
    value[:, :, -1, width] = 1.0
    return key, value


def context_and_self_attention(
    q_BHCW: Tensor,
    own: tuple[Tensor, Tensor],
    context: tuple[Tensor, Tensor],
    *,
    visible: Tensor | None = None,
) -> Tensor:
    """Attend from candidates to a context and, each, to itself, not to one another.

    One softmax over the context and the own key, in one kernel and without a mask of candidates
    times candidates: the score of a query with its own key is the query's extra coordinate, which
    the slot alone reads; the slot's share then comes out beside the mixed values.

    Args:
        q_BHCW: Queries of the candidates.
        own: Keys and values of the candidates, [B, H, C, W].
        context: What `with_own_slot` returned for the context.
        visible: Which rows of the context each candidate sees, boolean, broadcast to
            [B, H, C, S]; None means all.

    Returns:
        mixed_BHCW, equal to `causal_attention` of the candidates placed after the context.

    Source: feed-sr 4.3.
    """
    own_key, own_value = own
    key, value = context
    width = q_BHCW.shape[-1]
    extra = key.shape[-1] - width
    own_score = (q_BHCW * own_key).sum(dim=-1, keepdim=True)
    query = torch.cat([q_BHCW, pad(own_score, (0, extra - 1))], dim=-1)
    bias = None
    if visible is not None:
        hidden = pad(~visible, (0, 1))
        bias = torch.zeros_like(hidden, dtype=query.dtype).masked_fill_(hidden, -torch.inf)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=width**-0.5)
    return torch.addcmul(mixed[..., :width], mixed[..., width : width + 1], own_value)
