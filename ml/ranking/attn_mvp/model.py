"""AttnMVP: strict-causal attention over items whose values carry what was done to earlier items.

It does not know the user's id: a user is what they were shown and did. Events of one request see
the same past, so the model scores a whole request, or candidates against a cached context.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml.batches import PAD_REQUEST, Batch, context_sizes
from ml.features import NO_TIME, FeatureSpec
from ml.item_table import ItemTable
from ml.layers.bag_embedding import BagEmbedding
from ml.layers.rotary import Rotary
from ml.layers.strict_attention import earlier_request_mask
from ml.layers.value_mixing_block import Angles, StrictMultiHead, ValueMixingBlock, Visibility

# Shapes: B sequences, S events, D width, C context columns, A actions, L candidates.
STATIC_BUFFER = "items.static_columns"
TEXT_BUFFER = "items.text_vectors"
Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttnMvpConfig:
    """Size the model.

    Attributes:
        width: Width of both streams.
        heads: Attention heads; divides the width into even parts.
        layers: Value-mixing blocks.
        action_weight: Weight of the actions in the values (lambda of the paper).
        final_pooling: Whether past actions are pooled once more after the blocks.
        residual_scale: Factor of the residual branches.
        head_width: Hidden width of the prediction head.
        dropout_fraction: Dropout before the head.
        uses_text_embedding: Whether the item table's text embedding is an input.
    """

    width: int = 64
    heads: int = 2
    layers: int = 2
    action_weight: float = 1.0
    final_pooling: bool = True
    residual_scale: float = 1.0
    head_width: int = 128
    dropout_fraction: float = 0.0
    uses_text_embedding: bool = False

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the widths do not fit or a fraction is out of range.
        """
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x {self.heads} heads")
        if min(self.width, self.heads, self.layers, self.head_width) < 1:
            raise ValueError("width, heads, layers and head_width must be at least 1")
        if not 0 <= self.dropout_fraction < 1:
            raise ValueError(f"dropout_fraction must be in [0, 1), got {self.dropout_fraction}")


class AttnMvp(nn.Module):
    """Score events for every action, each from earlier requests only."""

    def __init__(self, config: AttnMvpConfig, *, spec: FeatureSpec, items: ItemTable) -> None:
        """Build the model.

        Args:
            config: Sizes and switches.
            spec: Vocabulary sizes.
            items: Facts of the items; kept with the weights.
        """
        super().__init__()
        self.config, self.spec = config, spec
        self.items = ItemEncoder(config, spec=spec, items=items)
        self.actions = ActionEncoder(config, spec=spec)
        self.rotary = Rotary(head_width=config.width // config.heads)
        self.blocks = nn.ModuleList(
            ValueMixingBlock(
                width=config.width, heads=config.heads, residual_scale=config.residual_scale
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.pooling = StrictMultiHead(width=config.width, heads=config.heads)
        self.pooling.requires_grad_(config.final_pooling)
        self.head = PredictionHead(config, spec=spec)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits_BSA of all events; row n depends on outcomes of earlier requests only."""
        items_BSD = self.items(batch)
        actions_BSD = self.actions(batch)
        where = Visibility(
            angles=self._angles(batch.request), mask=earlier_request_mask(batch.request)
        )
        x_BSD = items_BSD
        for block in self.blocks:
            x_BSD = block(x_BSD, self.config.action_weight * actions_BSD, where=where)
        x_BSD = self.norm(x_BSD)
        pooled_BSD = (
            self.pooling(x_BSD, actions_BSD, where=where)
            if self.config.final_pooling
            else torch.zeros_like(x_BSD)
        )
        return self.head((items_BSD, x_BSD, pooled_BSD), batch.context)

    def context_cache(self, batch: Batch) -> Cache:
        """Return each attention's keys and values of a context, the last being the pooling's.

        Args:
            batch: Contexts of equal length (no padding between events and candidates).
        """
        where = Visibility(
            angles=self._angles(batch.request), mask=earlier_request_mask(batch.request)
        )
        actions_BSD = self.actions(batch)
        shift_BSD = self.config.action_weight * actions_BSD
        x_BSD = self.items(batch)
        cache = []
        for block in self._blocks():
            values = block.values(x_BSD, shift_BSD)
            projected = block.attention.project(block.norm(x_BSD), values, angles=where.angles)
            cache.append(projected[1:])
            x_BSD = block(x_BSD, shift_BSD, where=where)
        projected = self.pooling.project(self.norm(x_BSD), actions_BSD, angles=where.angles)
        return [*cache, projected[1:]]

    def score_candidates(self, candidates: Batch, cache: Cache) -> Tensor:
        """Return logits_BLA of candidates of one next request, which see the context only.

        Args:
            candidates: Candidates with their request number; outcomes are ignored.
            cache: What `context_cache` returned for the same sequences.
        """
        items_BLD = self.items(candidates)
        angles = self._angles(candidates.request)
        x_BLD = items_BLD
        for block, block_cache in zip(self._blocks(), cache[:-1], strict=True):
            x_BLD = block.attend(x_BLD, block_cache, angles=angles)
        x_BLD = self.norm(x_BLD)
        pooled_BLD = (
            self.pooling.attend(x_BLD, cache[-1], angles=angles)
            if self.config.final_pooling
            else torch.zeros_like(x_BLD)
        )
        return self.head((items_BLD, x_BLD, pooled_BLD), candidates.context)

    def _blocks(self) -> list[ValueMixingBlock]:
        """Return the blocks by their type."""
        return [block for block in self.blocks if isinstance(block, ValueMixingBlock)]

    def _angles(self, request_BS: Tensor) -> Angles:
        """Return rotary angles: the position of an event is its request's number."""
        position_BS = request_BS.masked_fill(request_BS == PAD_REQUEST, 0)
        return self.rotary.angles(position_BS, torch.full_like(position_BS, NO_TIME))


class ItemEncoder(nn.Module):
    """Turn what is known when an item is shown into one vector."""

    static_columns: Tensor
    text_vectors: Tensor

    def __init__(self, config: AttnMvpConfig, *, spec: FeatureSpec, items: ItemTable) -> None:
        """Build the table of embeddings and the MLP after it."""
        super().__init__()
        static = [items.tags, items.codes, items.author[:, None]]
        columns = torch.cat([torch.from_numpy(part).to(torch.int32) for part in static], dim=1)
        self.register_buffer("static_columns", columns)
        tags, codes = (spec.num_tags,) * items.tags.shape[1], spec.code_sizes
        context = context_sizes(spec)
        # What items share starts large and ids start near zero: attention, which starts from
        # similarity, then finds events of the same kind at once.
        self.embedding = BagEmbedding(
            (spec.num_items + 1, *tags, *codes, spec.num_authors, *context),
            width=config.width,
            scales=(0.02, *[0.3] * len(tags + codes), 0.02, *[0.05] * len(context)),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 2 * config.width),
            nn.ReLU(),
            nn.Linear(2 * config.width, config.width),
        )
        self.norm = nn.LayerNorm(config.width)
        self.text = None
        if config.uses_text_embedding:
            self.register_buffer("text_vectors", torch.from_numpy(items.embedding))
            self.text = nn.Linear(items.embedding.shape[1], config.width, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        """Return items_BSD."""
        static_BSF = self.static_columns[batch.item]
        columns = torch.cat([batch.item[..., None], static_BSF, batch.context], dim=-1)
        x_BSD = self.embedding(columns)
        if self.text is not None:
            x_BSD = x_BSD + self.text(self.text_vectors[batch.item])
        return self.norm(x_BSD + self.mlp(x_BSD))


class ActionEncoder(nn.Module):
    """Turn the outcomes of an event into one vector."""

    def __init__(self, config: AttnMvpConfig, *, spec: FeatureSpec) -> None:
        """Build the MLP over the action bits and the dwell bucket."""
        super().__init__()
        self.bits = nn.Linear(len(spec.actions), config.width)
        self.dwell = nn.Embedding(spec.num_dwell_buckets, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, batch: Batch) -> Tensor:
        """Return actions_BSD."""
        hidden = self.bits(batch.actions) + self.dwell(batch.dwell)
        return self.output(torch.relu(hidden))


class PredictionHead(nn.Module):
    """Predict every action from the item, its mixed history and late features."""

    def __init__(self, config: AttnMvpConfig, *, spec: FeatureSpec) -> None:
        """Build the late embeddings and the MLP."""
        super().__init__()
        self._pools = config.final_pooling
        sizes = context_sizes(spec)
        self.late = BagEmbedding(sizes, width=config.head_width, scales=(0.1,) * len(sizes))
        parts = 4 if config.final_pooling else 2
        self.hidden = nn.Linear(parts * config.width, config.head_width)
        self.dropout = nn.Dropout(config.dropout_fraction)
        self.output = nn.Linear(config.head_width, len(spec.actions))

    def forward(self, streams: tuple[Tensor, Tensor, Tensor], context_BSC: Tensor) -> Tensor:
        """Return logits_BSA."""
        items_BSD, x_BSD, pooled_BSD = streams
        parts = [x_BSD, items_BSD * x_BSD]
        if self._pools:
            parts += [pooled_BSD, items_BSD * pooled_BSD]
        hidden = self.hidden(torch.cat(parts, dim=-1)) + self.late(context_BSC)
        return self.output(self.dropout(torch.nn.functional.silu(hidden)))
