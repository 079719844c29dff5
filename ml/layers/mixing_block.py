"""A pre-norm transformer block over events, whose attention values may carry past outcomes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.layers.causal_attention import (
    causal_attention,
    context_and_self_attention,
    with_own_slot,
)
from ml.layers.rotary import rotate
from ml.layers.scalars import AttentionTemperature
from ml.layers.strict_attention import cached_attention, strict_attention

# Shapes: B sequences, S rows, C candidates, D width, H heads, W head width.
Angles = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """Say where rows stand and what they may see.

    Attributes:
        angles: Rotary angles of the rows.
        mask: Mask that fits the attention, or None for every earlier row.
    """

    angles: Angles
    mask: Tensor | None = None


class MultiHead(nn.Module):
    """Multi-head attention to earlier rows, with inputs of their own for the values."""

    def __init__(self, *, width: int, heads: int, sees_itself: bool) -> None:
        """Create the projections, without bias, and where needed the learned pad.

        Args:
            width: Width of inputs and outputs.
            heads: Number of heads; divides the width.
            sees_itself: Whether a row sees itself. If not, a row that sees nothing returns the
                pad, and the mask is that of strict_attention.py.
        """
        super().__init__()
        self._heads = heads
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        with torch.no_grad():  # at first attend to similar items, whatever they are
            self.query_key.weight[width:] = self.query_key.weight[:width]
        self.temperature = AttentionTemperature()
        self.pad_HW = None if sees_itself else nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x_BSD: Tensor, values_BSD: Tensor, *, where: Visibility) -> Tensor:
        """Mix the values of earlier rows."""
        query, key, value = self.project(x_BSD, values_BSD, angles=where.angles)
        return self.mix(query, (key, value), mask=where.mask)

    def mix(self, query: Tensor, context: KeysValues, *, mask: Tensor | None) -> Tensor:
        """Mix projected values of earlier rows, [B, S, D]."""
        if self.pad_HW is None:
            mixed = causal_attention(query, *context, visible=mask)
        else:
            mixed = strict_attention(query, *context, pad_HW=self.pad_HW, visible=mask)
        return self._joined(mixed)

    def project(
        self, x_BSD: Tensor, values_BSD: Tensor, *, angles: Angles
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys (both rotated) and values, each [B, H, S, W]."""
        both = self.query_key(x_BSD).unflatten(-1, (2 * self._heads, -1)).transpose(1, 2)
        query, key = rotate(both, angles).chunk(2, dim=1)
        return self.temperature(query), key, self._split(self.value(values_BSD))

    def kept(self, context: KeysValues) -> KeysValues:
        """Return projected keys and values of a context as `attend` takes them."""
        return with_own_slot(*context) if self.pad_HW is None else context

    def attend(self, x_BCD: Tensor, kept: KeysValues, *, where: Visibility) -> Tensor:
        """Mix a context's values for candidates that do not see each other.

        Args:
            x_BCD: Candidates.
            kept: What `kept` returned for the context.
            where: The candidates' angles; its mask says what they see of the context,
                broadcast to [B, H, C, S].
        """
        if self.pad_HW is None:
            query, key, value = self.project(x_BCD, x_BCD, angles=where.angles)
            own = (key, value)
            return self._joined(context_and_self_attention(query, own, kept, visible=where.mask))
        query = nn.functional.linear(x_BCD, self.query_key.weight[: x_BCD.shape[-1]])
        query = self.temperature(rotate(self._split(query), where.angles))
        mixed = cached_attention(query, *kept, pad_HW=self.pad_HW, visible=where.mask)
        return self._joined(mixed)

    def _split(self, x_BSD: Tensor) -> Tensor:
        """Return the heads apart, [B, H, S, W]."""
        return x_BSD.unflatten(-1, (self._heads, -1)).transpose(1, 2)

    def _joined(self, mixed_BHSW: Tensor) -> Tensor:
        """Return the projected heads, [B, S, D]."""
        return self.output(mixed_BHSW.transpose(1, 2).flatten(2))


class MixingBlock(nn.Module):
    """One layer: attention over earlier rows, then a feed-forward network, both residual."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        sees_itself: bool,
        mixes_outcomes: bool,
        residual_scale: float = 1.0,
    ) -> None:
        """Create the layer.

        Args:
            width: Width of the streams.
            heads: Attention heads.
            sees_itself: Whether a row sees itself.
            mixes_outcomes: Whether the values are items with their outcomes added; a row must
                not see itself then.
            residual_scale: Factor of both residual branches.

        Raises:
            ValueError: If a row would see its own outcome.
        """
        super().__init__()
        if sees_itself and mixes_outcomes:
            raise ValueError("a row that sees itself must not carry its outcome in its values")
        self._scale = residual_scale
        self.norm = nn.LayerNorm(width)
        self.value_norm = nn.LayerNorm(width) if mixes_outcomes else None
        self.attention = MultiHead(width=width, heads=heads, sees_itself=sees_itself)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x_BSD: Tensor, shift_BSD: Tensor | None, *, where: Visibility
    ) -> tuple[Tensor, KeysValues]:
        """Return the next stream, and the keys and values that later candidates need.

        Args:
            x_BSD: The stream.
            shift_BSD: What outcomes add to the values; None if the block mixes none.
            where: Angles and mask of the rows.
        """
        query, key, value = self._projected(x_BSD, shift_BSD, angles=where.angles)
        mixed = self.attention.mix(query, (key, value), mask=where.mask)
        return self._finish(x_BSD, mixed), (key, value)

    def keys_values(self, x_BSD: Tensor, shift_BSD: Tensor | None, *, angles: Angles) -> KeysValues:
        """Return the keys and values of `forward` without the next stream."""
        return self._projected(x_BSD, shift_BSD, angles=angles)[1:]

    def attend(self, x_BCD: Tensor, kept: KeysValues, *, where: Visibility) -> Tensor:
        """Return the next stream of candidates that see a context and not each other.

        Args:
            x_BCD: The candidates' stream.
            kept: The context, from the attention's `kept`.
            where: Angles of the candidates, and what they see of the context.
        """
        return self._finish(x_BCD, self.attention.attend(self.norm(x_BCD), kept, where=where))

    def _projected(
        self, x_BSD: Tensor, shift_BSD: Tensor | None, *, angles: Angles
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of the stream and what outcomes add to it."""
        normed = self.norm(x_BSD)
        values = normed
        if self.value_norm is not None:
            assert shift_BSD is not None, "this block mixes outcomes into its values"
            values = self.value_norm(x_BSD + shift_BSD)
        return self.attention.project(normed, values, angles=angles)

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add both residual branches."""
        x = torch.add(x, mixed, alpha=self._scale)
        return torch.add(x, self.feed_forward(x), alpha=self._scale)
