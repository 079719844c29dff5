"""A sequence ranker: an input tokenizer, a rotation, a scheme, a head and a calibration.

It does not know the user's id: a user is what they were shown and did. Events of one request see
the same past, so the model scores a whole request, or candidates against a cached context.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ml.batches import PAD_REQUEST, Batch
from ml.features import FeatureSpec, FloatArray
from ml.item_table import ItemTable
from ml.layers.rotations import rotation
from ml.layers.siren_rope import SirenConfig
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.heads import (
    POSITION_COLUMN,
    LateFusion,
    PositionOffsets,
    WidePart,
    calibration,
    head,
)
from ml.ranking.sequence_ranker.inputs import ActionEncoder, ItemEncoder
from ml.ranking.sequence_ranker.schemes import Cache, Places, Streams, backbone

# Shapes: B sequences, S events, D width, A actions, L candidates.
_FIRST_SESSION = 1 << 30


class SequenceRanker(nn.Module):
    """Score events for every action, each from the outcomes of earlier requests only."""

    action_rates: Tensor

    def __init__(
        self, config: SequenceRankerConfig, *, spec: FeatureSpec, items: ItemTable
    ) -> None:
        """Build the model.

        Args:
            config: Parts and sizes.
            spec: Vocabulary sizes.
            items: Facts of the items; kept with the weights.
        """
        super().__init__()
        self.config, self.spec = config, spec
        num_actions = len(spec.actions)
        self.register_buffer("action_rates", torch.full((num_actions,), 0.5, dtype=torch.float64))
        self.items = ItemEncoder(config, spec=spec, items=items)
        self.actions = ActionEncoder(config, spec=spec)
        self.rotation = rotation(
            config.rotation,
            head_width=config.width // config.heads,
            siren=SirenConfig(branches=config.rotation_branches),  # pyright: ignore[reportArgumentType]
            pools=config.pools,
        )
        self.backbone = backbone(config)
        self.fusion = LateFusion(config, spec=spec)
        self.head = head(config, actions=spec.actions)
        self.wide = None
        if config.wide_buckets:
            self.wide = WidePart(buckets=config.wide_buckets, num_actions=num_actions)
        self.offsets = PositionOffsets(num_actions=num_actions) if config.position_offsets else None
        self.calibration = calibration(config, num_actions=num_actions)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits_BSA of all events; row n depends on outcomes of earlier requests only."""
        items_BSD = self.items(batch)
        streams = self.backbone(items_BSD, self.actions(batch), places=self._places(batch))
        return self._logits(items_BSD, streams, batch)

    def context_cache(self, batch: Batch) -> Cache:
        """Return each attention's keys and values of a context, the pooling's last.

        Args:
            batch: Contexts of equal length (no padding between events and candidates).
        """
        items_BSD, actions_BSD = self.items(batch), self.actions(batch)
        return self.backbone.with_cache(items_BSD, actions_BSD, places=self._places(batch))[1]

    def score_candidates(self, candidates: Batch, cache: Cache) -> Tensor:
        """Return logits_BLA of candidates of one next request, which see the context only.

        Where the position is an offset of the logits, all candidates get the same one.

        Args:
            candidates: Candidates with their request number; outcomes are ignored.
            cache: What `context_cache` returned for the same sequences.
        """
        if self.offsets is not None:
            context = candidates.context.clone()
            context[..., POSITION_COLUMN] = self.config.serving_position
            candidates = replace(candidates, context=context)
        items_BLD = self.items(candidates)
        places = self._places(candidates, masked=False)
        streams = self.backbone.served(items_BLD, cache, places=places)
        return self._logits(items_BLD, streams, candidates)

    def item_table(self) -> ItemTable:
        """Return the facts of the items that the model was built with, without their texts."""
        static = self.items.static_columns.cpu().numpy()
        num_tags = static.shape[1] - len(self.spec.code_sizes) - 1
        return ItemTable(
            tags=static[:, :num_tags],
            codes=static[:, num_tags:-1],
            author=static[:, -1],
            embedding=np.zeros((len(static), 0), np.float32),
            tag_names=np.array([], str),
        )

    def set_action_rates(self, rates: FloatArray) -> None:
        """Keep each action's base rate in the train split, [A], which the numbers relate to."""
        self.action_rates.copy_(torch.from_numpy(np.asarray(rates, np.float64)))

    def _logits(self, items_BSD: Tensor, streams: Streams, batch: Batch) -> Tensor:
        logits_BSA = self.head(self.fusion(items_BSD, streams, batch))
        if self.wide is not None:
            logits_BSA = self.wide(logits_BSA, batch.crosses)
        if self.offsets is not None:
            logits_BSA = self.offsets(logits_BSA, batch.context[..., POSITION_COLUMN])
        return self.calibration(logits_BSA)

    def _places(self, batch: Batch, *, masked: bool = True) -> Places:
        """Return angles, by an event's request and time, and the groups that hide its like."""
        position_BS = batch.request.masked_fill(batch.request == PAD_REQUEST, 0)
        angles = self.rotation.angles(position_BS, batch.time)
        pooling = angles
        if self.config.pools and self.config.rotation == "siren":
            pooling = self.rotation.angles(position_BS, batch.time, pooling=True)
        group_BS = visible_groups(batch, hides_session=self.config.hides_session)
        return Places(
            angles=angles,
            pooling_angles=pooling,
            groups=group_BS if masked and not is_rising(group_BS) else None,
        )


def visible_groups(batch: Batch, *, hides_session: bool) -> Tensor:
    """Return group_BS: an event may see earlier events of lower groups.

    A group is a request or, where a session hides its own, a session; undated history has no
    sessions and comes first. Padding is in the last group.

    Source: feed-sr 4.2 (in-session leakage, masked).
    """
    if not hides_session:
        return batch.request
    in_session = (batch.session > 0) & (batch.request != PAD_REQUEST)
    return torch.where(in_session, _FIRST_SESSION + batch.session, batch.request)


def is_rising(group_BS: Tensor) -> bool:
    """Return whether each event sees all events before it, so that no mask is needed."""
    padding_BS = group_BS[:, 1:] == PAD_REQUEST
    return bool(((group_BS[:, 1:] > group_BS[:, :-1]) | padding_BS).all())
