"""SASRec's encoder, and the model around it: an item table, places, and the inner product.

The encoder takes item vectors from anywhere. Rows may hold several sequences, one behind the
other, told apart by segment numbers; a mask of valid places is the case of one sequence per row.

Source: Kang and McAuley 2018 (arXiv 1808.09781, section III). Unlike the paper the blocks are
plain transformer blocks with GELU and a wider feed-forward part, as later published runs use them.
torch.compile does not pay here: with shapes that change by the batch 11,600 targets a second where
eager has 13,400 (one core, Amazon Beauty, whole steps), after a first step of 12 s.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

# Shapes: B rows, L places of a row, D width, H heads, W head width, V items, N valid places.


@dataclass(frozen=True, kw_only=True, slots=True)
class SasRecConfig:
    """Choose the sizes.

    Attributes:
        width: Width of item vectors and states.
        layers: Number of blocks.
        heads: Attention heads; divides the width.
        length: Most recent items that are read.
        feed_forward: Hidden width of a block's feed-forward part over `width`.
        dropout: Share of entries dropped of the item vectors that enter the blocks.
        residual_dropout: Share of entries dropped of what a branch adds.
        attention_dropout: Share of attention weights dropped.
        norm_first: Whether blocks normalise what enters a branch, or what leaves it.
        init_std: Standard deviation of the first weights.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 50
    feed_forward: int = 4
    dropout: float = 0.5
    residual_dropout: float = 0.0
    attention_dropout: float = 0.5
    norm_first: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if min(self.width, self.layers, self.heads, self.length, self.feed_forward) < 1:
            raise ValueError("width, layers, heads, length and feed_forward must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of {self.heads} heads")
        dropouts = (self.dropout, self.residual_dropout, self.attention_dropout)
        if not all(0 <= share < 1 for share in dropouts):
            raise ValueError(f"the three dropouts must be in [0, 1), got {dropouts}")


def visible_places(segments_BL: Tensor) -> Tensor:
    """Return visible_B1LL: keys at or before the query's place, of its own segment.

    Args:
        segments_BL: Number of each place's sequence; 0 or False is padding, which sees itself
            alone, so that its softmax is defined.
    """
    causal_LL = torch.ones(
        segments_BL.shape[1], segments_BL.shape[1], dtype=torch.bool, device=segments_BL.device
    ).tril()
    same_BLL = (segments_BL[:, :, None] == segments_BL[:, None, :]) & (segments_BL != 0)[:, None]
    itself_LL = torch.eye(segments_BL.shape[1], dtype=torch.bool, device=segments_BL.device)
    return ((same_BLL & causal_LL) | itself_LL)[:, None]


class CausalBlock(nn.Module):
    """One transformer block: causal self-attention and a feed-forward part."""

    def __init__(self, config: SasRecConfig) -> None:
        """Create the projections."""
        super().__init__()
        width = config.width
        self.config = config
        self.attention_dropout_fraction = config.attention_dropout
        self.residual_dropout_fraction = config.residual_dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward * width),
            nn.GELU(),
            nn.Linear(config.feed_forward * width, width),
        )

    def forward(self, x_BLD: Tensor, visible_B1LL: Tensor | None) -> Tensor:
        """Return the next states; without a mask every earlier place of a row is visible."""
        if self.config.norm_first:
            x_BLD = x_BLD + self._attend(self.attention_norm(x_BLD), visible_B1LL)
            return x_BLD + self._drop(self.feed_forward(self.feed_forward_norm(x_BLD)))
        x_BLD = self.attention_norm(x_BLD + self._attend(x_BLD, visible_B1LL))
        return self.feed_forward_norm(x_BLD + self._drop(self.feed_forward(x_BLD)))

    def _attend(self, x_BLD: Tensor, visible_B1LL: Tensor | None) -> Tensor:
        heads = self.query_key_value(x_BLD).unflatten(-1, (3, self.config.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed_BHLW = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible_B1LL,
            dropout_p=self.attention_dropout_fraction if self.training else 0.0,
            is_causal=visible_B1LL is None,
        )
        return self._drop(self.output(mixed_BHLW.transpose(1, 2).flatten(2)))

    def _drop(self, x_BLD: Tensor) -> Tensor:
        return dropout(x_BLD, self.residual_dropout_fraction, self.training)


class CausalEncoder(nn.Module):
    """A stack of causal blocks over vectors from anywhere."""

    def __init__(self, config: SasRecConfig) -> None:
        """Create the blocks."""
        super().__init__()
        self.config = config
        self.dropout_fraction = config.dropout
        self.input_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.layers))
        self.output_norm = nn.LayerNorm(config.width) if config.norm_first else nn.Identity()
        self.apply(self._start)

    def forward(self, x_BLD: Tensor, segments_BL: Tensor | None) -> Tensor:
        """Return a state per place, which knows the places up to its own.

        Args:
            x_BLD: Item vectors with their places added.
            segments_BL: Valid places as booleans, or segment numbers with 0 for padding; None
                if each row is one sequence with its padding, if any, behind it, which is faster.

        Returns:
            states_BLD; those of padding mean nothing.
        """
        visible_B1LL = None if segments_BL is None else visible_places(segments_BL)
        x_BLD = dropout(self.input_norm(x_BLD), self.dropout_fraction, self.training)
        for block in self.blocks:
            x_BLD = block(x_BLD, visible_B1LL)
        return self.output_norm(x_BLD)

    def _start(self, module: nn.Module) -> None:
        """Draw the first weights of a linear layer."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.init_std)
            nn.init.zeros_(module.bias)


class SasRec(nn.Module):
    """Read item ids, return states whose inner product with the item table scores the next."""

    def __init__(self, config: SasRecConfig, *, num_items: int, seed: int) -> None:
        """Create item table, places and encoder.

        Args:
            config: Sizes.
            num_items: Rows of the item table; ids are 0 to num_items - 1.
            seed: Seed of the first weights.
        """
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.items = nn.Embedding(num_items, config.width)
            self.places = nn.Embedding(config.length, config.width)
            self.encoder = CausalEncoder(config)
            for table in (self.items, self.places):
                nn.init.normal_(table.weight, std=config.init_std)

    def forward(self, items_BL: Tensor, places_BL: Tensor, segments_BL: Tensor | None) -> Tensor:
        """Return states_BLD.

        Args:
            items_BL: Item ids; anything valid where there is padding.
            places_BL: Place of each item in its sequence, from 0.
            segments_BL: As `CausalEncoder.forward`.
        """
        return self.encoder(self.items(items_BL) + self.places(places_BL), segments_BL)
