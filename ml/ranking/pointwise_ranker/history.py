"""Ways to turn a user's recent events into features of one candidate.

Each is a module with an `output_width` that takes the candidates' vectors, the module that gives
items their vectors, and the batch. Events are of earlier requests only, which the batches see to.
"""

import torch
from torch import Tensor, nn

from ml.features import FeatureSpec
from ml.ranking.pointwise_ranker.batches import MIN_HISTORY, History, PointBatch
from ml.ranking.pointwise_ranker.config import PointwiseConfig
from ml.ranking.pointwise_ranker.inputs import ItemVectors, OutcomeVectors
from ml.retrieval.sasrec.model import CausalEncoder, SasRecConfig

# Shapes: N targets, R requests, L events, D item width, K outcome width, H hidden, W token width.
_TARGETS_AT_ONCE = 64


def history_part(
    config: PointwiseConfig, *, spec: FeatureSpec, history_length: int
) -> "TargetAttention | TransAct | PositiveSequence | None":
    """Return the part that a configuration names, None for none.

    Args:
        config: The named parts and their sizes.
        spec: Vocabulary sizes.
        history_length: Events that a batch's histories hold at most.
    """
    if config.history == "target_attention":
        return TargetAttention(config, spec=spec)
    if config.history == "transact":
        return TransAct(config, spec=spec)
    if config.history == "sasrec":
        return PositiveSequence(config, history_length=history_length)
    return None


class TargetAttention(nn.Module):
    """Sum earlier events, each weighted by how it bears on the candidate.

    The activation unit reads (q, k, q - k, q * k) of candidate q and event k, and its weights are
    not normalised, so that many fitting events count for more than one. A linear layer of q and k
    spans that of q - k, which therefore has no weights of its own; the maps of k alone are
    computed once for all candidates of a request. Both are normalised first, unlike in the paper.

    Source: Zhou et al. 2018 (DIN, arXiv 1706.06978, section 4.3).
    """

    def __init__(self, config: PointwiseConfig, *, spec: FeatureSpec) -> None:
        """Create the activation unit."""
        super().__init__()
        width, hidden = config.item_width, config.attention_width
        self.output_width = width
        self.outcomes = OutcomeVectors(width, spec=spec)
        # Vectors start short; at unit scale their product speaks up from the first step.
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden, bias=False)
        self.product = nn.Linear(width, hidden, bias=False)
        self.activation = nn.PReLU()
        self.weight = nn.Linear(hidden, 1)
        # A sum of fifty events with random weights would drown the other features at first.
        nn.init.normal_(self.weight.weight, std=0.01)
        nn.init.zeros_(self.weight.bias)

    def forward(self, candidates_ND: Tensor, items: ItemVectors, batch: PointBatch) -> Tensor:
        """Return the weighted sum of each candidate's history, [N, D]."""
        history, request = batch.history, batch.request
        queries_ND = self.query_norm(candidates_ND)
        keys_RLD = self.key_norm(items(history.item) + self.outcomes(history))
        keys_NLD = keys_RLD[request]
        hidden_NLH = self.key(keys_RLD)[request] + self.query(queries_ND)[:, None]
        hidden_NLH = hidden_NLH + self.product(keys_NLD * queries_ND[:, None])
        weights_NL = self.weight(self.activation(hidden_NLH)).squeeze(-1)
        weights_NL = weights_NL * history.valid[request]
        return torch.einsum("nl,nld->nd", weights_NL, keys_NLD)


class TransAct(nn.Module):
    """Encode (item, outcome, candidate) tokens; give their maximum and the last five of them.

    The candidate stands in every token (early fusion), so the encoder reads the history in its
    light. The feed-forward part is half as wide as a token.

    Source: lirank 5.1 (arXiv 2402.06859), after TransAct.
    """

    def __init__(self, config: PointwiseConfig, *, spec: FeatureSpec) -> None:
        """Create the encoder."""
        super().__init__()
        width = 2 * config.item_width + config.action_width
        self.output_width = (1 + MIN_HISTORY) * width
        self.outcomes = OutcomeVectors(config.action_width, spec=spec)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, dim_feedforward=width // 2, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.history_layers, enable_nested_tensor=False
        )

    def forward(self, candidates_ND: Tensor, items: ItemVectors, batch: PointBatch) -> Tensor:
        """Return the maximum over the tokens and the last five, [N, 6 W]; 0 without history."""
        history = batch.history
        events_RLE = torch.cat([items(history.item), self.outcomes(history)], dim=-1)
        parts = [
            self._encode(candidates, events_RLE[request], history.valid[request])
            for candidates, request in zip(
                candidates_ND.split(_TARGETS_AT_ONCE),
                batch.request.split(_TARGETS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.cat(parts)

    def _encode(self, candidates_ND: Tensor, events_NLE: Tensor, valid_NL: Tensor) -> Tensor:
        """Return the features of some candidates, without what is padding for all of them."""
        length = max(int(valid_NL.sum(dim=1).max()), MIN_HISTORY)
        events_NLE, valid_NL = events_NLE[:, -length:], valid_NL[:, -length:]
        fused_NLD = candidates_ND[:, None].expand(-1, length, -1)
        tokens_NLW = torch.cat([events_NLE, fused_NLD], dim=-1)
        # An empty history sees one padded token, so that its softmax is defined.
        seen_NL = valid_NL.clone()
        seen_NL[:, -1] = True
        tokens_NLW = self.encoder(tokens_NLW, src_key_padding_mask=~seen_NL)
        last_N5W = tokens_NLW[:, -MIN_HISTORY:] * valid_NL[:, -MIN_HISTORY:, None]
        lowest = torch.finfo(tokens_NLW.dtype).min
        most_NW = tokens_NLW.masked_fill(~valid_NL[..., None], lowest).amax(dim=1)
        most_NW = most_NW.masked_fill(~valid_NL[:, -1:], 0.0)
        return torch.cat([most_NW, last_N5W.flatten(1)], dim=-1)


class PositiveSequence(nn.Module):
    """Multiply the candidate, entry by entry, with a causal encoder's last state.

    A linear head over the product is SASRec's inner product with a weight per entry and action.
    The history must hold positively engaged items only; outcomes are not read again.

    Source: Kang and McAuley 2018 (SASRec, arXiv 1808.09781, section III).
    """

    def __init__(self, config: PointwiseConfig, *, history_length: int) -> None:
        """Create places and encoder."""
        super().__init__()
        width = config.item_width
        self.output_width = width
        length = max(history_length, MIN_HISTORY)
        self.places = nn.Embedding(length, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.nothing_D = nn.Parameter(torch.zeros(width))
        self.encoder = CausalEncoder(
            SasRecConfig(
                width=width,
                layers=config.history_layers,
                heads=config.heads,
                length=length,
                dropout=config.dropout_fraction,
            )
        )

    def forward(self, candidates_ND: Tensor, items: ItemVectors, batch: PointBatch) -> Tensor:
        """Return candidate times state, [N, D]; without history a learned state stands in."""
        history_RL, length_R = _left_aligned(batch.history)
        places_L = torch.arange(history_RL.shape[1], device=history_RL.device)
        states_RLD = self.encoder(items(history_RL) + self.places(places_L), None)
        rows_R = torch.arange(len(length_R), device=history_RL.device)
        last_RD = states_RLD[rows_R, (length_R - 1).clamp(min=0)]
        state_RD = torch.where(length_R[:, None] > 0, last_RD, self.nothing_D)
        return candidates_ND * state_RD[batch.request]


def _left_aligned(history: History) -> tuple[Tensor, Tensor]:
    """Return items_RL with their padding behind them, and how many there are, [R]."""
    length_R = history.valid.sum(dim=1)
    width = history.item.shape[1]
    steps_L = torch.arange(width, device=history.item.device)
    source_RL = (steps_L + width - length_R[:, None]) % width
    return history.item.gather(1, source_RL), length_R
