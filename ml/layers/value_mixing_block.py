"""A pre-norm transformer block over items whose attention values also carry past actions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.layers.rotary import Angles, rotate
from ml.layers.strict_attention import cached_attention, strict_attention

# Shapes: B sequences, S events, C candidates, D width, H heads, W head width.


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """Say where rows stand and what they may see.

    Attributes:
        angles: Rotary angles of the rows.
        mask: Mask of `earlier_request_mask`, or None for plain strict causality.
    """

    angles: Angles
    mask: Tensor | None = None


class StrictMultiHead(nn.Module):
    """Multi-head strict attention with separate inputs for queries/keys and values."""

    def __init__(self, *, width: int, heads: int) -> None:
        """Create the projections, without bias, and the learned pad.

        Args:
            width: Width of inputs and outputs.
            heads: Number of heads; divides the width.
        """
        super().__init__()
        self._heads = heads
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        with torch.no_grad():  # at first attend to similar items, whatever they are
            self.query_key.weight[width:] = self.query_key.weight[:width]
        self.pad_HW = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x_BSD: Tensor, values_BSD: Tensor, *, where: Visibility) -> Tensor:
        """Mix the values of strictly earlier rows."""
        query, key, value = self.project(x_BSD, values_BSD, angles=where.angles)
        mixed = strict_attention(query, key, value, pad_HW=self.pad_HW, visible=where.mask)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def project(
        self, x_BSD: Tensor, values_BSD: Tensor, *, angles: Angles
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys (both rotated) and values, each [B, H, S, W]."""
        both = self.query_key(x_BSD).unflatten(-1, (2 * self._heads, -1)).transpose(1, 2)
        query, key = rotate(both, angles).chunk(2, dim=1)
        return query, key, self._split(self.value(values_BSD))

    def attend(self, x_BCD: Tensor, cache: tuple[Tensor, Tensor], *, angles: Angles) -> Tensor:
        """Mix a cached context's values for candidates that do not see each other."""
        width = x_BCD.shape[-1]
        query = nn.functional.linear(x_BCD, self.query_key.weight[:width])
        mixed = cached_attention(rotate(self._split(query), angles), *cache, pad_HW=self.pad_HW)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x_BSD: Tensor) -> Tensor:
        """Return the heads apart, [B, H, S, W]."""
        return x_BSD.unflatten(-1, (self._heads, -1)).transpose(1, 2)


class ValueMixingBlock(nn.Module):
    """One AttnMVP layer: queries and keys from items, values from items plus their actions."""

    def __init__(self, *, width: int, heads: int, residual_scale: float = 1.0) -> None:
        """Create the layer.

        Args:
            width: Width of the item and action streams.
            heads: Attention heads.
            residual_scale: Factor of both residual branches.
        """
        super().__init__()
        self._scale = residual_scale
        self.norm = nn.LayerNorm(width)
        self.value_norm = nn.LayerNorm(width)
        self.attention = StrictMultiHead(width=width, heads=heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BSD: Tensor, shift_BSD: Tensor, *, where: Visibility) -> Tensor:
        """Return the next item stream; `shift_BSD` is the action share of the values."""
        mixed = self.attention(self.norm(x_BSD), self.values(x_BSD, shift_BSD), where=where)
        return self._finish(x_BSD, mixed)

    def values(self, x_BSD: Tensor, shift_BSD: Tensor) -> Tensor:
        """Return what the attention mixes: items with their actions added."""
        return self.value_norm(x_BSD + shift_BSD)

    def attend(self, x_BCD: Tensor, cache: tuple[Tensor, Tensor], *, angles: Angles) -> Tensor:
        """Return the next stream of candidates that see a cached context only."""
        return self._finish(x_BCD, self.attention.attend(self.norm(x_BCD), cache, angles=angles))

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add both residual branches."""
        x = torch.add(x, mixed, alpha=self._scale)
        return torch.add(x, self.feed_forward(x), alpha=self._scale)
