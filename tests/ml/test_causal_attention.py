"""Candidates that see a context and themselves, against a plain loop."""

import torch
from torch import Tensor

from ml.layers.causal_attention import context_and_self_attention, with_own_slot

CANDIDATES, CONTEXT = 4, 3


def _streams(width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (2, 2, CONTEXT + CANDIDATES, width)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def _served(q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor | None = None) -> Tensor:
    own = (k[:, :, CONTEXT:], v[:, :, CONTEXT:])
    context = with_own_slot(k[:, :, :CONTEXT], v[:, :, :CONTEXT])
    return context_and_self_attention(q[:, :, CONTEXT:], own, context, visible=visible)


def _by_loop(streams: list[Tensor], visible: Tensor) -> Tensor:
    q, k, v = streams
    out = torch.empty_like(q[:, :, CONTEXT:])
    for b, h, c in torch.cartesian_prod(*(torch.arange(n) for n in out.shape[:3])).tolist():
        row = CONTEXT + c
        seen = [s for s in range(CONTEXT) if visible[b, 0, c, s]] + [row]
        scores = torch.stack([q[b, h, row] @ k[b, h, s] for s in seen]) / q.shape[-1] ** 0.5
        out[b, h, c] = torch.softmax(scores, 0) @ v[b, h, seen]
    return out


def test_equals_a_plain_loop_for_widths_that_are_multiples_of_eight_and_others() -> None:
    for width in (4, 6, 8, 16):
        streams = _streams(width)
        everything = torch.ones(2, 1, CANDIDATES, CONTEXT, dtype=torch.bool)
        torch.testing.assert_close(_served(*streams), _by_loop(streams, everything))


def test_equals_a_plain_loop_when_candidates_see_a_part_of_the_context() -> None:
    streams = _streams(4)
    visible = (
        torch.rand(2, 1, CANDIDATES, CONTEXT, generator=torch.Generator().manual_seed(1)) > 0.5
    )
    visible[0, 0, 2] = False  # sees itself only
    assert visible.any() and not visible.all()
    got = _served(*streams, visible=visible)
    torch.testing.assert_close(got, _by_loop(streams, visible))
    torch.testing.assert_close(got[0, :, 2], streams[2][0, :, CONTEXT + 2])


def test_a_candidate_without_context_is_its_own_value() -> None:
    q, k, v = _streams(4)
    empty = with_own_slot(k[:, :, :0], v[:, :, :0])
    torch.testing.assert_close(context_and_self_attention(q, (k, v), empty), v)


def test_large_scores_with_itself_do_not_overflow() -> None:
    q, k, v = (stream.float() for stream in _streams(4))
    q[:, :, CONTEXT:] = k[:, :, CONTEXT:] = 200.0  # a score of 80,000
    torch.testing.assert_close(_served(q, k, v), v[:, :, CONTEXT:])
    k[:, :, CONTEXT:] = -200.0
    away = _served(q, k, v)
    everything = torch.ones(2, 1, CANDIDATES, CONTEXT, dtype=torch.bool)
    assert away.isfinite().all()
    torch.testing.assert_close(away, _by_loop([q, k, v], everything))
