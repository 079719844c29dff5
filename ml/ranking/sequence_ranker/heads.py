"""Predict every action from the item, its streams, and what joins late."""

import torch
from torch import Tensor, nn

from ml.batches import CONTEXT_COLUMNS, Batch
from ml.features import FeatureSpec
from ml.layers.bag_embedding import BagEmbedding
from ml.ranking.numeric_features import number_names
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.inputs import context_columns

# Shapes: B sequences, S events, D width, E head width, A actions, P positions.
POSITION_COLUMN = CONTEXT_COLUMNS.index("position")
POSITIONS = 60  # positions with an offset of their own; later ones have none


class LateFusion(nn.Module):
    """Join item, streams, their products with the item, context and numbers into one vector.

    The first layer over their concatenation, the categorical ones as one-hot columns.
    """

    def __init__(self, config: SequenceRankerConfig, *, spec: FeatureSpec) -> None:
        """Build the late embeddings and the layers."""
        super().__init__()
        context = context_columns(config, spec=spec)
        self._places = list(context)
        sizes = tuple(context.values())
        self.late = BagEmbedding(sizes, width=config.head_width, scales=(0.1,) * len(sizes))
        streams = 2 if config.pools else 1
        self.hidden = nn.Linear(2 * streams * config.width, config.head_width)
        self.numbers = None
        if config.late_numbers:
            self.numbers = nn.Linear(len(number_names(spec)), config.head_width, bias=False)

    def forward(self, items_BSD: Tensor, streams: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return fused_BSE."""
        parts = [part for x_BSD in streams for part in (x_BSD, items_BSD * x_BSD)]
        fused_BSE = self.hidden(torch.cat(parts, dim=-1))
        fused_BSE = fused_BSE + self.late(batch.context[..., self._places])
        if self.numbers is not None:
            fused_BSE = fused_BSE + self.numbers(batch.numbers)
        return fused_BSE


class MlpHead(nn.Module):
    """One hidden layer, shared by the actions."""

    def __init__(self, config: SequenceRankerConfig, *, num_actions: int) -> None:
        """Build the layers after the fusion."""
        super().__init__()
        self.dropout = nn.Dropout(config.dropout_fraction)
        self.output = nn.Linear(config.head_width, num_actions)

    def forward(self, fused_BSE: Tensor) -> Tensor:
        """Return logits_BSA."""
        return self.output(self.dropout(torch.nn.functional.silu(fused_BSE)))


class LinearHead(nn.Module):
    """No hidden layer: the logits are a linear function of the parts."""

    def __init__(self, config: SequenceRankerConfig, *, num_actions: int) -> None:
        """Build the output layer."""
        super().__init__()
        self.output = nn.Linear(config.head_width, num_actions)

    def forward(self, fused_BSE: Tensor) -> Tensor:
        """Return logits_BSA."""
        return self.output(fused_BSE)


class PositionOffsets(nn.Module):
    """Add to each action's logit an offset of the position; those past the last have none.

    Source: feed-sr 4.2.
    """

    def __init__(self, *, num_actions: int) -> None:
        """Create the offsets, zero at first."""
        super().__init__()
        self.offset_PA = nn.Parameter(torch.zeros(POSITIONS + 1, num_actions))

    def forward(self, logits_BSA: Tensor, position_BS: Tensor) -> Tensor:
        """Return the shifted logits.

        Args:
            logits_BSA: Logits without positions.
            position_BS: Positions from 1; 0 is unknown, and has no offset either.
        """
        known = (position_BS > 0) & (position_BS <= POSITIONS)
        offset_BSA = self.offset_PA[position_BS.clamp(0, POSITIONS)]
        return logits_BSA + offset_BSA * known[..., None]


def head(config: SequenceRankerConfig, *, actions: tuple[str, ...]) -> nn.Module:
    """Return the head of a configuration, from fused_BSE to logits_BSA.

    Args:
        config: Names the head.
        actions: Ordered action names.
    """
    if config.head == "linear":
        return LinearHead(config, num_actions=len(actions))
    if config.head == "mlp":
        return MlpHead(config, num_actions=len(actions))
    raise ValueError(config.head)


def calibration(config: SequenceRankerConfig, *, num_actions: int) -> nn.Module:
    """Return what the logits pass at last."""
    return nn.Identity()
