"""The strict attention primitive against an explicit mask and a plain loop."""

import pytest
import torch
from torch import Tensor

from ml.batches import PAD_REQUEST
from ml.features import NO_TIME
from ml.layers.rotary import Rotary, rotate
from ml.layers.strict_attention import (
    cached_attention,
    earlier_request_mask,
    strict_attention,
)


def _streams(steps: int, *, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, 2, steps, 4, generator=generator, dtype=torch.float64) for _ in range(3)
    ]


def _by_loop(q: Tensor, k: Tensor, v: Tensor, pad: Tensor, request: Tensor) -> Tensor:
    out = torch.empty_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for n in range(q.shape[2]):
                seen = [m for m in range(n) if request[b, m] < request[b, n]]
                if not seen:
                    out[b, h, n] = pad[h]
                    continue
                scores = torch.stack([q[b, h, n] @ k[b, h, m] for m in seen]) / 4**0.5
                out[b, h, n] = torch.softmax(scores, 0) @ v[b, h, seen]
    return out


PAD = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.float64)


def test_equals_a_plain_loop_when_requests_hold_several_events() -> None:
    request = torch.tensor([[0, 0, 1, 1, 1, 4], [2, 3, 3, 3, 5, 6]])
    q, k, v = _streams(6)
    got = strict_attention(q, k, v, pad_HW=PAD, visible=earlier_request_mask(request))
    torch.testing.assert_close(got, _by_loop(q, k, v, PAD, request))


def test_equals_a_plain_loop_when_requests_overlap() -> None:
    request = torch.tensor([[1, 0, 1, 2, 0, 3], [3, 2, 1, 0, 1, 2]])
    q, k, v = _streams(6)
    got = strict_attention(q, k, v, pad_HW=PAD, visible=earlier_request_mask(request))
    torch.testing.assert_close(got, _by_loop(q, k, v, PAD, request))


def test_square_form_equals_the_explicit_mask_of_single_events() -> None:
    request = torch.arange(7).repeat(2, 1)
    q, k, v = _streams(7)
    square = strict_attention(q, k, v, pad_HW=PAD)
    masked = strict_attention(q, k, v, pad_HW=PAD, visible=earlier_request_mask(request))
    torch.testing.assert_close(square, masked, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(square, _by_loop(q, k, v, PAD, request))


def test_rows_without_visible_keys_return_the_pad_and_pass_finite_gradients() -> None:
    request = torch.tensor([[5, 5, 5, 5], [0, 0, 1, PAD_REQUEST]])
    q, k, v = (stream.requires_grad_() for stream in _streams(4))
    got = strict_attention(q, k, v, pad_HW=PAD, visible=earlier_request_mask(request))
    for row in range(4):
        assert torch.equal(got[0, :, row], PAD)
    assert torch.equal(got[1, :, 1], PAD)
    got.sum().backward()
    for stream in (q, k, v):
        assert stream.grad is not None
        assert torch.isfinite(stream.grad).all()


def test_a_single_event_returns_the_pad() -> None:
    q, k, v = _streams(1)
    got = strict_attention(q, k, v, pad_HW=PAD)
    assert torch.equal(got[:, :, 0], PAD.expand(2, -1, -1))


def test_padding_is_never_a_visible_key() -> None:
    request = torch.tensor([[0, 1, PAD_REQUEST, PAD_REQUEST]])
    assert not earlier_request_mask(request)[..., 2:].any()


def test_candidates_against_an_empty_context_return_the_pad() -> None:
    q, k, v = _streams(3)
    got = cached_attention(q, k[:, :, :0], v[:, :, :0], pad_HW=PAD)
    assert torch.equal(got[1, :, 2], PAD)


def test_candidates_that_see_a_part_of_the_context_equal_a_plain_loop() -> None:
    request = torch.tensor([[0, 1, 1, 2, 2, 2, 2], [3, 4, 4, 9, 9, 9, 9]])
    request = torch.cat([request, request[1:] + 9])
    request[2, 3:] = 0  # the third user's candidates see nothing
    q, k, v = _streams(7, batch=3)
    visible = request[:, None, 3:, None] > request[:, None, None, :3]
    expected = _by_loop(q, k, v, PAD, request)[:, :, 3:]
    context = (k[:, :, :3], v[:, :, :3])
    got = cached_attention(q[:, :, 3:], *context, pad_HW=PAD, visible=visible)
    torch.testing.assert_close(got, expected)
    one_row = cached_attention(q[:, :, 3:], *context, pad_HW=PAD, visible=visible[:, :, :1])
    torch.testing.assert_close(one_row, expected)
    assert torch.equal(got[2, 1, 3], PAD[1])


def test_rotary_scores_depend_on_the_distance_only() -> None:
    rotary = Rotary(head_width=8)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(at: int, to: int) -> Tensor:
        undated = torch.tensor([[NO_TIME]])
        turned_q = rotate(q, rotary.angles(torch.tensor([[at]]), undated))
        turned_k = rotate(k, rotary.angles(torch.tensor([[to]]), undated))
        return (turned_q * turned_k).sum()

    torch.testing.assert_close(score(9, 4), score(25, 20))
    assert abs(float(score(9, 4) - score(9, 7))) > 1e-3
    torch.testing.assert_close(score(0, 0), (q * k).sum())


def test_rotary_refuses_an_odd_width() -> None:
    with pytest.raises(ValueError, match="even head width"):
        Rotary(head_width=5)
