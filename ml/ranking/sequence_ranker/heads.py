"""Predict every action from the item, its streams, and what joins late."""

import torch
from torch import Tensor, nn

from ml.batches import CONTEXT_COLUMNS, Batch
from ml.features import FeatureSpec
from ml.layers.bag_embedding import BagEmbedding
from ml.layers.isotonic import IsotonicLayer
from ml.layers.mixture_heads import ExpertConfig, Experts, MultiGateMixture, ParallelCross
from ml.ranking.crosses import CROSSES_OF_KINDS
from ml.ranking.numeric_features import number_names
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.inputs import context_columns

# Shapes: B sequences, S events, D width, E head width, A actions, P positions.
POSITION_COLUMN = CONTEXT_COLUMNS.index("position")
PASSIVE_ACTIONS = {"click", "long_view", "long_dwell", "valid_play", "skip", "view"}
GATE_DROPOUT = 0.1
WIDE_SCALE = 10.0  # a cross occurs in few batches: its weight has to move farther in each
POSITIONS = 60  # positions with an offset of their own; later ones have none


class LateFusion(nn.Module):
    """Join item, streams, their products with the item, context, numbers and crosses.

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
        self.numbers = self.meetings = None
        if config.late_numbers:
            self.numbers = nn.Linear(len(number_names(spec)), config.head_width, bias=False)
        if config.wide_crosses:
            self.meetings = nn.Linear(len(CROSSES_OF_KINDS), config.head_width, bias=False)

    def forward(self, items_BSD: Tensor, streams: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return fused_BSE."""
        parts = [part for x_BSD in streams for part in (x_BSD, items_BSD * x_BSD)]
        fused_BSE = self.hidden(torch.cat(parts, dim=-1))
        fused_BSE = fused_BSE + self.late(batch.context[..., self._places])
        if self.numbers is not None:
            fused_BSE = fused_BSE + self.numbers(batch.numbers)
        if self.meetings is not None:
            fused_BSE = fused_BSE + self.meetings(_remembered(batch.crosses))
        return fused_BSE


def _remembered(crosses_BSX: Tensor) -> Tensor:
    """Return how many crosses of each kind the vocabulary has, [B, S, kinds].

    That two items meet more often than by chance says something, however rare the pair is.
    """
    kinds = (crosses_BSX > 0).split(CROSSES_OF_KINDS, dim=-1)
    return torch.stack([kind.sum(dim=-1) for kind in kinds], dim=-1).float()


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


class WidePart(nn.Module):
    """Add to each logit a weight for each of the event's crosses: memory beside the deep part."""

    def __init__(self, *, crosses: int, num_actions: int) -> None:
        """Create the weights, zero at first; number 0 is no cross."""
        super().__init__()
        self.embedding = nn.EmbeddingBag(crosses + 1, num_actions, mode="sum", padding_idx=0)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, logits_BSA: Tensor, crosses_BSX: Tensor) -> Tensor:
        """Return the shifted logits."""
        added = WIDE_SCALE * self.embedding(crosses_BSX.flatten(0, 1))
        return logits_BSA + added.unflatten(0, crosses_BSX.shape[:2])


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


class MixtureHead(nn.Module):
    """Experts shared by the actions, a gate for each of two groups, a tower for each action.

    Passive actions (opening, staying, skipping) and active ones (liking, sharing, ...) mix the
    experts each in their own way; a log without one of the kinds has one gate.

    Source: feed-sr 4.1.
    """

    def __init__(
        self, config: SequenceRankerConfig, *, actions: tuple[str, ...], experts: ExpertConfig
    ) -> None:
        """Build experts, gates and towers."""
        super().__init__()
        is_active = [action not in PASSIVE_ACTIONS for action in actions]
        kinds = sorted(set(is_active))
        self._groups = [kinds.index(kind) for kind in is_active]
        self.mixture = MultiGateMixture(
            config.head_width,
            experts=Experts(config.head_width, config=experts),
            groups=len(kinds),
            gate_dropout=GATE_DROPOUT,
        )
        self.dropout = nn.Dropout(config.dropout_fraction)
        self.weight_AO = nn.Parameter(torch.randn(len(actions), experts.output) * 0.02)
        self.bias_A = nn.Parameter(torch.zeros(len(actions)))

    def forward(self, fused_BSE: Tensor) -> Tensor:
        """Return logits_BSA."""
        mixed_BSGO = self.mixture(torch.nn.functional.silu(fused_BSE))
        own_BSAO = self.dropout(torch.relu(mixed_BSGO))[..., self._groups, :]
        return (own_BSAO * self.weight_AO).sum(dim=-1) + self.bias_A


class ParallelCrossHead(nn.Module):
    """A low-rank cross network beside an MLP, shared by the actions."""

    def __init__(self, config: SequenceRankerConfig, *, num_actions: int) -> None:
        """Build both branches."""
        super().__init__()
        self.branches = ParallelCross(config.head_width, config=_experts(config, cross_layers=2))
        self.dropout = nn.Dropout(config.dropout_fraction)
        self.output = nn.Linear(self.branches.output_width, num_actions)

    def forward(self, fused_BSE: Tensor) -> Tensor:
        """Return logits_BSA."""
        joint = torch.relu(self.branches(torch.nn.functional.silu(fused_BSE)))
        return self.output(self.dropout(joint))


def _experts(config: SequenceRankerConfig, *, cross_layers: int) -> ExpertConfig:
    width = config.head_width
    return ExpertConfig(
        hidden=width,
        output=max(1, width // 2),
        cross_layers=cross_layers,
        cross_rank=min(16, width),
    )


def head(config: SequenceRankerConfig, *, actions: tuple[str, ...]) -> nn.Module:
    """Return the head of a configuration, from fused_BSE to logits_BSA.

    Args:
        config: Names the head; an instance knows no other than those of `HEADS`.
        actions: Ordered action names.
    """
    if config.head == "linear":
        return LinearHead(config, num_actions=len(actions))
    if config.head == "mlp":
        return MlpHead(config, num_actions=len(actions))
    if config.head == "parallel_dcn":
        return ParallelCrossHead(config, num_actions=len(actions))
    cross_layers = 2 if config.head == "mmoe_dcn" else 0
    experts = _experts(config, cross_layers=cross_layers)
    return MixtureHead(config, actions=actions, experts=experts)


def start_at(module: nn.Module, logits_A: Tensor) -> None:
    """Let a head's logits start around some values.

    Args:
        module: What `head` returned.
        logits_A: Log-odds of each action.
    """
    bias = module.bias_A if isinstance(module, MixtureHead) else module.get_parameter("output.bias")
    with torch.no_grad():
        bias.copy_(logits_A)


def calibration(config: SequenceRankerConfig, *, num_actions: int) -> nn.Module:
    """Return what the logits pass at last."""
    return IsotonicLayer(num_actions) if config.calibration == "isotonic_layer" else nn.Identity()
