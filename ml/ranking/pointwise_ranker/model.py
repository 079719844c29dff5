"""A point-wise ranker put together from its named parts.

Candidate, context, numbers and history features stand side by side; crosses and a network let
them meet; one linear head per action scores them. It does not know the user's id.
"""

import torch
from torch import Tensor, nn

from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.layers.cross import CrossNetwork, ResidualCrossNetwork, default_rank
from ml.layers.gating import gated_mlp
from ml.layers.isotonic import IsotonicLayer
from ml.ranking.expectation import Expectation
from ml.ranking.numeric_features import number_names
from ml.ranking.pointwise_ranker.batches import PointBatch
from ml.ranking.pointwise_ranker.config import PointwiseConfig
from ml.ranking.pointwise_ranker.history import history_part
from ml.ranking.pointwise_ranker.inputs import ContextVectors, ItemVectors
from ml.ranking.rates import log_odds

# Shapes: N target events, D item width, X features, A actions.
RATES_BUFFER, WEIGHTS_BUFFER = "rates", "expectation_weights"


class PointwiseRanker(nn.Module):
    """Score target events for every action."""

    rates: Tensor
    expectation_weights: Tensor

    def __init__(
        self,
        config: PointwiseConfig,
        *,
        spec: FeatureSpec,
        items: ItemTable,
        expectation: Expectation,
        history_length: int,
    ) -> None:
        """Build the model.

        Args:
            config: The named parts and their sizes.
            spec: Vocabulary sizes.
            items: Facts of the items; kept with the weights.
            expectation: What the numbers relate to; kept with the weights, and its base rates
                are where logits start.
            history_length: Events that a batch's histories hold at most.
        """
        super().__init__()
        self.config, self.spec = config, spec
        self.register_buffer(RATES_BUFFER, torch.from_numpy(expectation.rates))
        self.register_buffer(WEIGHTS_BUFFER, torch.from_numpy(expectation.weights))
        self.items = ItemVectors(config.item_width, spec=spec, items=items)
        self.context = ContextVectors(config.context_width, spec=spec)
        num_numbers = len(number_names(spec))
        self.number_norm = nn.BatchNorm1d(num_numbers)
        self.history = history_part(config, spec=spec, history_length=history_length)
        width = config.item_width + self.context.output_width + num_numbers
        if self.history is not None:
            width += self.history.output_width
        self.interaction = Interaction(config, width=width)
        self.dropout = nn.Dropout(config.dropout_fraction)
        self.heads = nn.Linear(self.interaction.output_width, len(spec.actions))
        with torch.no_grad():
            self.heads.bias.copy_(torch.from_numpy(log_odds(expectation.rates)))
        self.calibration = (
            IsotonicLayer(len(spec.actions)) if config.calibration == "isotonic_layer" else None
        )

    @property
    def expectation(self) -> Expectation:
        """Return what the numbers relate to."""
        return Expectation(
            rates=self.rates.cpu().numpy(), weights=self.expectation_weights.cpu().numpy()
        )

    def forward(self, batch: PointBatch) -> Tensor:
        """Return logits_NA."""
        candidates_ND = self.items(batch.item)
        parts = [candidates_ND, self.context(batch), self.number_norm(batch.numbers)]
        if self.history is not None:
            parts.append(self.history(candidates_ND, self.items, batch))
        hidden = self.interaction(torch.cat(parts, dim=-1))
        logits_NA = self.heads(self.dropout(hidden))
        return logits_NA if self.calibration is None else self.calibration(logits_NA)


class Interaction(nn.Module):
    """Let features meet: crosses and a network side by side, either, or neither."""

    def __init__(self, config: PointwiseConfig, *, width: int) -> None:
        """Create the networks.

        Args:
            config: Which ones, and their sizes.
            width: Width of the features.
        """
        super().__init__()
        self.cross = _cross_network(config, width=width)
        self.network = None
        self.output_width = width
        if config.interaction != "linear":
            widths = (width, *config.hidden_widths)
            self.network = gated_mlp(widths, gated=config.dense_gating)
            self.output_width = widths[-1]
        if self.cross is not None:
            self.output_width += self.cross.output_width

    def forward(self, features_NX: Tensor) -> Tensor:
        """Return hidden features, [N, output_width]."""
        parts = [part(features_NX) for part in (self.cross, self.network) if part is not None]
        return torch.cat(parts, dim=-1) if parts else features_NX


def _cross_network(
    config: PointwiseConfig, *, width: int
) -> CrossNetwork | ResidualCrossNetwork | None:
    """Return the cross network that a configuration names, None for none."""
    layers = config.cross_layers
    if config.interaction == "dcn_v2":
        return CrossNetwork(width, layers=layers)
    if config.interaction == "dcn_v2_low_rank":
        return CrossNetwork(width, layers=layers, rank=default_rank(width))
    if config.interaction == "residual_dcn":
        return ResidualCrossNetwork(width, layers=layers)
    return None
