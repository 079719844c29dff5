"""How outcomes of past events reach later ones: the backbones of the sequence rankers.

All take the item stream and the outcome stream and return streams of one row per event, whose row
n depends on the outcomes of earlier groups only. `served` scores candidates that come after a
context without computing it again.

Source: attn-lfa-mvp 3.1 and 3.2, arXiv 2603.10369; feed-sr 4.1, arXiv 2602.12354.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.layers.causal_attention import earlier_group_mask, paired_mask
from ml.layers.mixing_block import Angles, KeysValues, MixingBlock, MultiHead, Visibility
from ml.layers.strict_attention import earlier_request_mask
from ml.ranking.sequence_ranker.config import SequenceRankerConfig

# Shapes: B sequences, S events, D width, L candidates.
Cache = list[KeysValues]
Streams = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Say where events stand.

    Attributes:
        angles: Rotary angles of the blocks.
        pooling_angles: Rotary angles of the final pooling.
        groups: [B, S] Events see events of lower groups; None if each event sees all before it.
    """

    angles: Angles
    pooling_angles: Angles
    groups: Tensor | None = None


class ItemStack(nn.Module):
    """Blocks over one row per event; outcomes come in with the values, a final pooling, or both."""

    def __init__(self, config: SequenceRankerConfig) -> None:
        """Create the blocks of AttnMVP, AttnLFA, or a model that sees no outcome."""
        super().__init__()
        self._mixes = config.scheme in ("attn_mvp", "attn_mvp_without_lfa")
        self._weight = config.action_weight
        self.blocks = nn.ModuleList(
            MixingBlock(
                width=config.width,
                heads=config.heads,
                sees_itself=not self._mixes,
                mixes_outcomes=self._mixes,
                residual_scale=config.residual_scale,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.pooling = (
            MultiHead(width=config.width, heads=config.heads, sees_itself=False)
            if config.pools
            else None
        )

    def forward(self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places) -> Streams:
        """Return the item stream and, with a pooling, the pooled outcomes."""
        return self.with_cache(items_BSD, actions_BSD, places=places)[0]

    def with_cache(
        self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places
    ) -> tuple[Streams, Cache]:
        """Return the streams, and each attention's keys and values, the pooling's last."""
        strict = inclusive = None
        if places.groups is not None:
            if self._mixes or self.pooling is not None:
                strict = earlier_request_mask(places.groups)
            if not self._mixes:
                inclusive = earlier_group_mask(places.groups)
        where = Visibility(angles=places.angles, mask=strict if self._mixes else inclusive)
        shift_BSD = self._weight * actions_BSD if self._mixes else None
        x_BSD, cache = items_BSD, []
        for block in self.blocks:
            x_BSD, kept = block(x_BSD, shift_BSD, where=where)
            cache.append(kept)
        x_BSD = self.norm(x_BSD)
        if self.pooling is None:
            return (x_BSD,), cache
        query, key, value = self.pooling.project(x_BSD, actions_BSD, angles=places.pooling_angles)
        pooled_BSD = self.pooling.mix(query, (key, value), mask=strict)
        return (x_BSD, pooled_BSD), [*cache, (key, value)]

    def served(self, items_BLD: Tensor, cache: Cache, *, places: Places) -> Streams:
        """Return the streams of candidates that see the context, and not each other."""
        x_BLD = items_BLD
        for block, kept in zip(self.blocks, cache, strict=False):
            assert isinstance(block, MixingBlock)
            x_BLD = block.attend(x_BLD, kept, angles=places.angles)
        x_BLD = self.norm(x_BLD)
        if self.pooling is None:
            return (x_BLD,)
        return x_BLD, self.pooling.attend(x_BLD, cache[-1], angles=places.pooling_angles)


class InterleavedStack(nn.Module):
    """Blocks over two rows per event, item then outcome; only the item rows are read."""

    def __init__(self, config: SequenceRankerConfig) -> None:
        """Create the blocks; an event's two rows share their position."""
        super().__init__()
        self.blocks = nn.ModuleList(
            MixingBlock(
                width=config.width,
                heads=config.heads,
                sees_itself=True,
                mixes_outcomes=False,
                residual_scale=config.residual_scale,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places) -> Streams:
        """Return the item rows; row n saw the outcomes of earlier groups."""
        return self.with_cache(items_BSD, actions_BSD, places=places)[0]

    def with_cache(
        self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places
    ) -> tuple[Streams, Cache]:
        """Return the item rows, and each block's keys and values of all rows."""
        cosine, sine = (part.repeat_interleave(2, dim=2) for part in places.angles)
        mask = None if places.groups is None else paired_mask(places.groups)
        where = Visibility(angles=(cosine, sine), mask=mask)
        x_BRD = torch.stack([items_BSD, actions_BSD], dim=2).flatten(1, 2)
        cache = []
        for block in self.blocks:
            x_BRD, kept = block(x_BRD, None, where=where)
            cache.append(kept)
        return (self.norm(x_BRD[:, 0::2]),), cache

    def served(self, items_BLD: Tensor, cache: Cache, *, places: Places) -> Streams:
        """Return the rows of candidates that see the context and themselves; none has outcomes."""
        x_BLD = items_BLD
        for block, kept in zip(self.blocks, cache, strict=True):
            assert isinstance(block, MixingBlock)
            x_BLD = block.attend(x_BLD, kept, angles=places.angles)
        return (self.norm(x_BLD),)


def backbone(config: SequenceRankerConfig) -> ItemStack | InterleavedStack:
    """Return the backbone of a configuration's scheme."""
    return InterleavedStack(config) if config.scheme == "interleaved" else ItemStack(config)
