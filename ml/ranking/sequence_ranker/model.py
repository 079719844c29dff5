"""A sequence ranker: an input tokenizer, a rotation, a scheme, a head and a calibration.

It does not know the user's id: a user is what they were shown and did. Events of one request see
the same past, so the model scores a whole request, or candidates against a cached context.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ml.batches import PAD_REQUEST, Batch
from ml.features import FeatureSpec, IntArray
from ml.item_table import ItemTable
from ml.layers.rotations import rotation
from ml.layers.scalars import LabelSmoothing
from ml.layers.siren_rope import SirenConfig
from ml.ranking.crosses import NO_KEY
from ml.ranking.expectation import Expectation, num_weights
from ml.ranking.rates import log_odds
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.heads import (
    POSITION_COLUMN,
    LateFusion,
    PositionOffsets,
    WidePart,
    calibration,
    head,
    start_at,
)
from ml.ranking.sequence_ranker.inputs import ItemEncoder, OutcomeEncoder
from ml.ranking.sequence_ranker.schemes import Cache, Places, Streams, backbone

# Shapes: B sequences, S events, D width, A actions, L candidates.
_FIRST_SESSION = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """Hold what candidates need of their users' contexts.

    Attributes:
        kept: What each attention keeps, the final pooling's last.
        groups: [B, S] Groups of the events; candidates see those of lower groups.
    """

    kept: Cache
    groups: Tensor


class SequenceRanker(nn.Module):
    """Score events for every action, each from the outcomes of earlier requests only."""

    action_rates: Tensor
    expectation_weights: Tensor
    cross_keys: Tensor

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
        weights = torch.zeros(num_weights(spec), dtype=torch.float64)
        self.register_buffer("expectation_weights", weights)
        self.items = ItemEncoder(config, spec=spec, items=items)
        self.outcomes = None
        if config.scheme != "no_action":
            self.outcomes = OutcomeEncoder(config, spec=spec)
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
        if config.wide_crosses:
            self.register_buffer("cross_keys", torch.full((config.wide_crosses,), NO_KEY))
            self.wide = WidePart(crosses=config.wide_crosses, num_actions=num_actions)
        self.offsets = PositionOffsets(num_actions=num_actions) if config.position_offsets else None
        self.calibration = calibration(config, num_actions=num_actions)
        self.label_smoothing = LabelSmoothing()

    def forward(self, batch: Batch) -> Tensor:
        """Return logits_BSA of all events; row n depends on outcomes of earlier requests only."""
        items_BSD = self.items(batch)
        outcomes_BSD = self._outcomes(items_BSD, batch)
        streams = self.backbone(items_BSD, outcomes_BSD, places=self._places(batch))
        return self._logits(items_BSD, streams, batch)

    def context_cache(self, batch: Batch) -> Context:
        """Return what candidates need of contexts, right-padded, each of any length."""
        items_BSD = self.items(batch)
        actions_BSD = self._outcomes(items_BSD, batch)
        return Context(
            kept=self.backbone.context(items_BSD, actions_BSD, places=self._places(batch)),
            groups=visible_groups(batch, hides_session=self.config.hides_session),
        )

    def score_candidates(self, candidates: Batch, context: Context) -> Tensor:
        """Return logits_BLA of candidates, which see events of earlier groups and not each other.

        Where the position is an offset of the logits, all candidates get the same one.

        Args:
            candidates: Candidates with their request and session number, right-padded; outcomes
                are ignored.
            context: What `context_cache` returned for the same users.
        """
        if self.offsets is not None:
            facts = candidates.context.clone()
            facts[..., POSITION_COLUMN] = self.config.serving_position
            candidates = replace(candidates, context=facts)
        items_BLD = self.items(candidates)
        streams = self.backbone.served(
            items_BLD, context.kept, places=self._places(candidates, context=context)
        )
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

    @property
    def expectation(self) -> Expectation:
        """Return what the numbers relate to."""
        return Expectation(
            rates=self.action_rates.cpu().numpy(), weights=self.expectation_weights.cpu().numpy()
        )

    def start_from(self, expectation: Expectation) -> None:
        """Keep what the numbers relate to, and let the logits start at the base rates.

        From logits of 0 the first epoch goes into the base rates of the rare actions: with five
        actions AttnMVP then ended three epochs at a validation NE of 0.859 where it now is at
        0.831 (simulated feed, 3,000 users).
        """
        self.action_rates.copy_(torch.from_numpy(expectation.rates))
        self.expectation_weights.copy_(torch.from_numpy(expectation.weights))
        start_at(self.head, torch.from_numpy(log_odds(expectation.rates)))

    def set_cross_keys(self, keys: IntArray) -> None:
        """Keep the vocabulary of crosses, int64, as long as the configuration says."""
        self.cross_keys.copy_(torch.from_numpy(keys))

    def _outcomes(self, items_BSD: Tensor, batch: Batch) -> Tensor:
        """Return outcomes_BSD; a scheme that reads none gets zeros."""
        if self.outcomes is None:
            return torch.zeros_like(items_BSD)
        return self.outcomes(items_BSD, batch)

    def _logits(self, items_BSD: Tensor, streams: Streams, batch: Batch) -> Tensor:
        logits_BSA = self.head(self.fusion(items_BSD, streams, batch))
        if self.wide is not None:
            logits_BSA = self.wide(logits_BSA, batch.crosses)
        if self.offsets is not None:
            logits_BSA = self.offsets(logits_BSA, batch.context[..., POSITION_COLUMN])
        return self.calibration(logits_BSA)

    def _places(self, batch: Batch, *, context: Context | None = None) -> Places:
        """Return angles, by an event's request and time, and what hides other events from it.

        Args:
            batch: Sequences, or candidates.
            context: Context of the candidates.
        """
        position_BS = batch.request.masked_fill(batch.request == PAD_REQUEST, 0)
        angles = self.rotation.angles(position_BS, batch.time)
        pooling = angles
        if self.config.pools and self.config.rotation == "siren":
            pooling = self.rotation.angles(position_BS, batch.time, pooling=True)
        group_BS = visible_groups(batch, hides_session=self.config.hides_session)
        groups = visible = None
        if context is not None:
            visible = visible_context(group_BS, context.groups)
        elif not is_rising(group_BS):
            groups = group_BS
        return Places(angles=angles, pooling_angles=pooling, groups=groups, visible=visible)


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


def visible_context(group_BL: Tensor, context_group_BS: Tensor) -> Tensor | None:
    """Return which events of a context each candidate sees: those of lower groups.

    Returns:
        visible_B1LS, boolean; visible_B11S where a user's candidates see the same events, None
        where all see everything.
    """
    visible = group_BL[:, None, :, None] > context_group_BS[:, None, None, :]
    if visible.all():
        return None
    first = visible[:, :, :1]
    return first if bool((visible == first).all()) else visible
