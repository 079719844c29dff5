"""How outcomes of past events reach later ones: the backbones of the sequence rankers.

All take the item stream and the outcome stream and return streams of one row per event, whose row
n depends on the outcomes of earlier groups only. `context` keeps what candidates need of a context,
`served` computes the streams of candidates that come after it.

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
        visible: Broadcast to [B, 1, L, S], which events of a context candidates see; None for all.
    """

    angles: Angles
    pooling_angles: Angles
    groups: Tensor | None = None
    visible: Tensor | None = None


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
        where, shift_BSD = self._where(places), self._shift(actions_BSD)
        x_BSD = items_BSD
        for block in self.blocks:
            x_BSD, _ = block(x_BSD, shift_BSD, where=where)
        x_BSD = self.norm(x_BSD)
        if self.pooling is None:
            return (x_BSD,)
        mask = None if places.groups is None else earlier_request_mask(places.groups)
        pooling = Visibility(angles=places.pooling_angles, mask=mask)
        return x_BSD, self.pooling(x_BSD, actions_BSD, where=pooling)

    def context(self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places) -> Cache:
        """Return what each attention keeps of a context, the pooling's last."""
        where, shift_BSD = self._where(places), self._shift(actions_BSD)
        x_BSD, cache = _kept(
            self.blocks, items_BSD, shift_BSD, where=where, ends=self.pooling is not None
        )
        if self.pooling is None:
            return cache
        angles = places.pooling_angles
        _, key, value = self.pooling.project(self.norm(x_BSD), actions_BSD, angles=angles)
        return [*cache, self.pooling.kept((key, value))]

    def served(self, items_BLD: Tensor, cache: Cache, *, places: Places) -> Streams:
        """Return the streams of candidates that see the context, and not each other."""
        where = Visibility(angles=places.angles, mask=places.visible)
        x_BLD = self.norm(_attended(self.blocks, items_BLD, cache, where=where))
        if self.pooling is None:
            return (x_BLD,)
        pooling = Visibility(angles=places.pooling_angles, mask=places.visible)
        return x_BLD, self.pooling.attend(x_BLD, cache[-1], where=pooling)

    def _where(self, places: Places) -> Visibility:
        """Return where the blocks' rows stand."""
        if places.groups is None:
            return Visibility(angles=places.angles)
        masked = earlier_request_mask if self._mixes else earlier_group_mask
        return Visibility(angles=places.angles, mask=masked(places.groups))

    def _shift(self, actions_BSD: Tensor) -> Tensor | None:
        """Return what outcomes add to the values."""
        return self._weight * actions_BSD if self._mixes else None


class InterleavedStack(nn.Module):
    """Blocks over two rows per event, item then its outcome; only the item rows are read."""

    def __init__(self, config: SequenceRankerConfig) -> None:
        """Create the blocks; an event's two rows share their position."""
        super().__init__()
        self._carries_item = config.outcomes == "with_item"
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
        x_BRD, where = self._paired(items_BSD, actions_BSD), _paired_places(places)
        for block in self.blocks:
            x_BRD, _ = block(x_BRD, None, where=where)
        return (self.norm(x_BRD[:, 0::2]),)

    def context(self, items_BSD: Tensor, actions_BSD: Tensor, *, places: Places) -> Cache:
        """Return what each block keeps of all rows of a context."""
        rows_BRD, where = self._paired(items_BSD, actions_BSD), _paired_places(places)
        return _kept(self.blocks, rows_BRD, None, where=where, ends=False)[1]

    def served(self, items_BLD: Tensor, cache: Cache, *, places: Places) -> Streams:
        """Return the rows of candidates that see the context and themselves; none has outcomes."""
        visible = places.visible
        mask = None if visible is None else visible.repeat_interleave(2, dim=3)
        where = Visibility(angles=places.angles, mask=mask)
        return (self.norm(_attended(self.blocks, items_BLD, cache, where=where)),)

    def _paired(self, items_BSD: Tensor, actions_BSD: Tensor) -> Tensor:
        """Return rows of item and outcome in turn, [B, 2S, D].

        An outcome's row carries its item, unless outcomes are alone. Alone, the first layer must
        learn to copy an item into the row after it before anything can be looked up by item: on
        the dog/cat toy NE stayed at 0.91 for 400 to 600 steps at learning rates of 1e-3 to 5e-3;
        with the item it is at the limit within 160.
        """
        rows_BSD = items_BSD + actions_BSD if self._carries_item else actions_BSD
        return torch.stack([items_BSD, rows_BSD], dim=2).flatten(1, 2)


def _kept(
    blocks: nn.ModuleList,
    x_BSD: Tensor,
    shift_BSD: Tensor | None,
    *,
    where: Visibility,
    ends: bool,
) -> tuple[Tensor, Cache]:
    """Return a context's last stream and what each block keeps of it.

    Args:
        blocks: The stack.
        x_BSD: The stream.
        shift_BSD: What outcomes add to the values.
        where: Angles and mask.
        ends: Whether the last block's stream is wanted; without it that block only projects.
    """
    cache = []
    for place, block in enumerate(blocks, start=1):
        assert isinstance(block, MixingBlock)
        if place == len(blocks) and not ends:
            keys_values = block.keys_values(x_BSD, shift_BSD, angles=where.angles)
        else:
            x_BSD, keys_values = block(x_BSD, shift_BSD, where=where)
        cache.append(block.attention.kept(keys_values))
    return x_BSD, cache


def _attended(blocks: nn.ModuleList, x_BLD: Tensor, cache: Cache, *, where: Visibility) -> Tensor:
    """Return the stream of candidates after the blocks; a cache may hold a pooling's part too."""
    for block, kept in zip(blocks, cache, strict=False):
        assert isinstance(block, MixingBlock)
        x_BLD = block.attend(x_BLD, kept, where=where)
    return x_BLD


def _paired_places(places: Places) -> Visibility:
    """Return where interleaved rows stand: an event's two rows share their angle."""
    cosine, sine = (part.repeat_interleave(2, dim=2) for part in places.angles)
    mask = None if places.groups is None else paired_mask(places.groups)
    return Visibility(angles=(cosine, sine), mask=mask)


def backbone(config: SequenceRankerConfig) -> ItemStack | InterleavedStack:
    """Return the backbone of a configuration's scheme."""
    return InterleavedStack(config) if config.scheme == "interleaved" else ItemStack(config)
