"""Shared-context scoring: a user's history goes through the model once, for all candidates.

Also what that saves: the token passes and the floating-point operations of a request, against
computing the history again for every candidate.

Source: feed-sr 4.3, arXiv 2602.12354; attn-lfa-mvp 3.3, arXiv 2603.10369.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from ml.batches import PAD_REQUEST, Batch
from ml.features import FloatArray
from ml.layers.mixture_heads import StackedLinear
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.model import SequenceRanker

# Shapes: B users, L candidates, A actions, D width, R context rows.


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Size one user's request.

    Attributes:
        context_events: Events of the history.
        candidates: Candidates to score.
    """

    context_events: int
    candidates: int

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If there is no candidate or the history is negative.
        """
        if self.context_events < 0 or self.candidates < 1:
            raise ValueError(f"a request has 0 or more events and 1 or more candidates, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Count what one request costs, in one unit.

    Attributes:
        recomputed: With the context computed again for each candidate.
        shared: With the context computed once.
    """

    recomputed: int
    shared: int

    @property
    def ratio(self) -> Fraction:
        """Return how many times less the shared context costs."""
        return Fraction(self.recomputed, self.shared)


def score_candidates(model: SequenceRanker, context: Batch, candidates: Batch) -> FloatArray:
    """Return the probability of every action for every candidate, float32 [B, L, A].

    Args:
        model: A sequence ranker; left in evaluation mode.
        context: Histories of B users, right-padded, each of any length.
        candidates: Candidates of the same users, right-padded, with the request and session
            number of the request they are for. Their outcomes are ignored; what is returned for
            padding means nothing.

    Raises:
        ValueError: If the users differ, or a model that hides a session's own events is not told
            the candidates' session.
    """
    if not torch.equal(context.row, candidates.row):
        raise ValueError("context and candidates must hold the same users in the same order")
    is_candidate = candidates.request != PAD_REQUEST
    has_unknown_session = bool((candidates.session[is_candidate] == 0).any())
    if model.config.hides_session and has_unknown_session and bool((context.session > 0).any()):
        raise ValueError("this model hides a session from itself: give candidates their session")
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        kept = model.context_cache(context.to(device))
        logits_BLA = model.score_candidates(candidates.to(device), kept)
        return torch.sigmoid(logits_BLA.float()).cpu().numpy()


def rows_per_event(config: SequenceRankerConfig) -> int:
    """Return the rows (tokens) of a past event; a candidate has one row, having no outcome."""
    return 2 if config.scheme == "interleaved" else 1


def token_passes(config: SequenceRankerConfig, request: Request) -> Work:
    """Return the rows that pass through each block.

    With C rows of context and N candidates they are N (C + 1) and C + N, so that the ratio is
    N (C + 1) / (C + N).
    """
    rows, candidates = request.context_events * rows_per_event(config), request.candidates
    return Work(recomputed=candidates * (rows + 1), shared=rows + candidates)


def scoring_flops(model: SequenceRanker, request: Request) -> Work:
    """Return the floating-point operations of linear layers and attention, two a multiply-add.

    Attention counts the visible pairs of a history whose events are requests of their own. Left
    out, as small: embeddings, norms, rotations, gates times experts, the wide part, calibration.
    """
    context = _context_flops(model, request.context_events)
    candidate = _candidate_flops(model, request.context_events)
    return Work(
        recomputed=request.candidates * (context + candidate),
        shared=context + request.candidates * candidate,
    )


def _context_flops(model: SequenceRanker, events: int) -> int:
    """Return what keeping a context costs."""
    config = model.config
    width, rows = config.width, events * rows_per_event(config)
    outcomes = 0 if model.outcomes is None else _linear_flops(model.outcomes)
    encoders = events * (_linear_flops(model.items) + outcomes)
    pairs = rows * (rows + 1 if _sees_itself(config) else rows - 1) // 2
    block = rows * 24 * width**2 + pairs * 4 * width
    projection = rows * 6 * width**2  # of the last attention only keys and values are kept
    return encoders + (config.layers if config.pools else config.layers - 1) * block + projection


def _candidate_flops(model: SequenceRanker, events: int) -> int:
    """Return what one candidate costs once the context is kept."""
    config = model.config
    width, rows = config.width, events * rows_per_event(config)
    linear, pairs = (24, rows + 1) if _sees_itself(config) else (20, rows)
    blocks = config.layers * (linear * width**2 + pairs * 4 * width)
    pooling = 4 * width**2 + rows * 4 * width if config.pools else 0
    ends = sum(_linear_flops(part) for part in (model.items, model.fusion, model.head))
    return blocks + pooling + ends


def _linear_flops(module: nn.Module) -> int:
    """Return the operations of a module's linear maps for one row."""
    return 2 * sum(
        part.get_parameter("weight" if isinstance(part, nn.Linear) else "weight_EIO").numel()
        for part in module.modules()
        if isinstance(part, nn.Linear | StackedLinear)
    )


def _sees_itself(config: SequenceRankerConfig) -> bool:
    """Return whether a row of the blocks attends to itself."""
    return config.scheme not in ("attn_mvp", "attn_mvp_without_lfa")
