"""Shared-context scoring equals the masked pass and one-by-one scoring, in every combination."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ml.batches import PAD_REQUEST, Batch
from ml.inference.shared_context import (
    Request,
    score_candidates,
    scoring_flops,
    token_passes,
)
from ml.ranking.sequence_ranker.heads import POSITION_COLUMN
from ml.ranking.sequence_ranker.model import SequenceRanker
from tests.ml.one_by_one import (
    counted_rows,
    one_by_one,
    recomputed,
    shared,
    stacked,
    steps_of,
)
from tests.ml.sequence_examples import one_batch, sequences, small_model

SCHEMES = ["attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved", "no_action"]
CONTEXT, CANDIDATES = 12, 5
NEXT_REQUEST = 90

pytestmark = pytest.mark.usefixtures("one_thread")


def _model(*, dtype: torch.dtype = torch.float64, **config: Any) -> SequenceRanker:
    return small_model(**config).to(dtype)


def _example(
    context: int = CONTEXT, *, dtype: torch.dtype = torch.float64, request: int = NEXT_REQUEST
) -> Batch:
    """Return three users' events, in requests of three, of which the last five are one request."""
    batch = one_batch(sequences([context + CANDIDATES] * 3))
    batch.request[:, context:] = request
    batch.time[:, context:] = batch.time[:, -1:]
    batch.session[:, context:] = NEXT_REQUEST  # a session of its own
    return replace(batch, actions=batch.actions.to(dtype))


def _cut(batch: Batch, context: int = CONTEXT) -> tuple[Batch, Batch]:
    return steps_of(batch, slice(0, context)), steps_of(batch, slice(context, None))


def _masked(model: SequenceRanker, batch: Batch, context: int = CONTEXT) -> Tensor:
    """Return the candidates' logits of the pass that training makes."""
    with torch.inference_mode():
        return model(batch)[:, context:]


def _assert_all_equal(model: SequenceRanker, batch: Batch, context: int = CONTEXT) -> None:
    """Compare logits; in float32 SIREN's logits of other batch shapes as scores.

    Its sines enlarge the last bits of a product, which depend on the batch's shape.
    """
    dtype = batch.actions.dtype
    limits = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-11}
    enlarges = model.config.rotation == "siren" and dtype == torch.float32
    shown = torch.sigmoid if enlarges else torch.as_tensor
    past, candidates = _cut(batch, context)
    served = shared(model, past, candidates)
    assert served.dtype == dtype and served.isfinite().all()
    assert served.std(dim=1).min() > 1e-3  # the candidates differ, so that equality says something
    torch.testing.assert_close(served, _masked(model, batch, context), **limits)
    for other in (recomputed(model, past, candidates), one_by_one(model, past, candidates)):
        torch.testing.assert_close(shown(served), shown(other), **limits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rotation", ["ordinal", "time_offset", "siren"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_the_masked_pass_and_one_by_one_scoring(
    scheme: str, rotation: str, dtype: torch.dtype
) -> None:
    _assert_all_equal(_model(scheme=scheme, rotation=rotation, dtype=dtype), _example(dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("head", ["linear", "mlp", "mmoe", "parallel_dcn", "mmoe_dcn"])
@pytest.mark.parametrize("scheme", ["attn_mvp", "interleaved"])
def test_equals_with_every_head(scheme: str, head: str, dtype: torch.dtype) -> None:
    model = _model(scheme=scheme, head=head, calibration="isotonic_layer", dtype=dtype)
    _assert_all_equal(model, _example(dtype=dtype))


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_with_hardly_any_context(scheme: str, context: int) -> None:
    _assert_all_equal(_model(scheme=scheme), _example(context), context)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_when_every_event_sees_all_before_it(scheme: str) -> None:
    batch = _example()
    batch.request[:, :CONTEXT] = torch.arange(CONTEXT, dtype=torch.int32)
    _assert_all_equal(_model(scheme=scheme), batch)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_are_permuted_with_the_candidates(scheme: str) -> None:
    model = _model(scheme=scheme)
    past, candidates = _cut(_example())
    order = [2, 0, 4, 3, 1]
    turned = shared(model, past, steps_of(candidates, order))
    expected = shared(model, past, candidates)[:, order]
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outcomes_of_candidates_do_not_matter(scheme: str) -> None:
    model = _model(scheme=scheme)
    past, candidates = _cut(_example())
    other = replace(candidates, actions=1 - candidates.actions, dwell=8 - candidates.dwell)
    assert torch.equal(shared(model, past, candidates), shared(model, past, other))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_candidates_of_a_running_session_do_not_see_its_events(scheme: str) -> None:
    model = _model(scheme=scheme, hides_session=True)
    batch = _example()
    batch.session[:, 7:] = NEXT_REQUEST  # the last five events of the context are the session's
    _assert_all_equal(model, batch)
    past, candidates = _cut(batch)
    before = shared(model, past, candidates)
    assert torch.equal(shared(model, _other_facts(past, 7), candidates), before)
    assert (shared(model, _other_facts(past, 6), candidates) != before).any(dim=-1).all()
    # Without the rule the candidates do see them.
    seeing = _model(scheme=scheme)
    assert (shared(seeing, _other_facts(past, 7), candidates) != shared(seeing, *_cut(batch))).all()


def _other_facts(batch: Batch, first: int) -> Batch:
    """Return the batch with other items and outcomes from an event on."""
    item, actions = batch.item.clone(), batch.actions.clone()
    item[:, first:] = item[:, first:] % 40 + 1
    actions[:, first:] = 1 - actions[:, first:]
    return replace(batch, item=item, actions=actions)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_context_of_the_running_session_alone_is_no_context(scheme: str) -> None:
    model = _model(scheme=scheme, hides_session=True)
    batch = _example()
    batch.session[:] = NEXT_REQUEST
    _assert_all_equal(model, batch)
    past, candidates = _cut(batch)
    empty = steps_of(past, slice(0, 0))
    expected = shared(model, empty, candidates)
    torch.testing.assert_close(shared(model, past, candidates), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_candidates_of_a_request_that_has_begun_do_not_see_its_events(scheme: str) -> None:
    model = _model(scheme=scheme)
    batch = _example(request=3)  # events 9 to 11 of the context are of request 3
    _assert_all_equal(model, batch)
    past, candidates = _cut(batch)
    before = shared(model, past, candidates)
    assert torch.equal(shared(model, _other_facts(past, 9), candidates), before)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_candidates_of_two_requests_each_see_what_came_before_theirs(scheme: str) -> None:
    batch = _example()
    batch.request[:, CONTEXT + 3 :] = 2
    with torch.inference_mode():
        model = _model(scheme=scheme)
        past, candidates = _cut(batch)
        served = shared(model, past, candidates)
        # A masked pass would lay the candidates of request 2 before later ones: two passes.
        late = _masked(model, steps_of(batch, slice(0, CONTEXT + 3)))
        early = _masked(model, steps_of(batch, [*range(CONTEXT), CONTEXT + 3, CONTEXT + 4]))
    torch.testing.assert_close(served, torch.cat([late, early], dim=1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("hides_session", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_users_with_contexts_of_different_lengths_share_a_batch(
    scheme: str, hides_session: bool
) -> None:
    model = _model(scheme=scheme, rotation="siren", hides_session=hides_session)
    users = [
        _cut(steps_of(_user(row), slice(0, length + count)), length)
        for row, (length, count) in enumerate([(0, 3), (1, 5), (12, 2)])
    ]
    contexts, candidates = (stacked([user[part] for user in users]) for part in (0, 1))
    together = shared(model, contexts, candidates)
    assert together.isfinite().all()
    for row, (past, own) in enumerate(users):
        alone = shared(model, past, own)
        found = together[row : row + 1, : own.item.shape[1]]
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-11)


def _user(row: int) -> Batch:
    batch = _example()
    columns = {name: getattr(batch, name)[row : row + 1] for name in batch.__slots__}
    return Batch(**columns)


@pytest.mark.parametrize("scheme", ["attn_mvp", "interleaved"])
def test_all_candidates_get_the_offset_of_the_serving_position(scheme: str) -> None:
    model = _model(scheme=scheme, position_offsets=True, serving_position=4)
    past, candidates = _cut(_example())
    offsets = model.offsets
    assert offsets is not None
    with_offsets = shared(model, past, candidates)
    fourth = offsets.offset_PA[4].detach().clone()
    assert fourth.abs().min() > 1e-3
    with torch.no_grad():
        offsets.offset_PA.zero_()
    without = shared(model, past, candidates)
    torch.testing.assert_close(with_offsets, without + fourth, rtol=0, atol=1e-11)
    # and the positions that candidates come with do not matter
    facts = candidates.context.clone()
    facts[..., POSITION_COLUMN] = 9
    assert torch.equal(shared(model, past, replace(candidates, context=facts)), without)


@pytest.mark.parametrize("scheme", ["attn_mvp", "interleaved"])
def test_offsets_at_the_serving_position_are_those_of_the_masked_pass(scheme: str) -> None:
    batch = _example()
    batch.context[:, CONTEXT:, POSITION_COLUMN] = 5
    _assert_all_equal(_model(scheme=scheme, position_offsets=True), batch)


def test_engine_returns_the_probabilities_of_a_batch_of_users() -> None:
    model = _model(scheme="interleaved", dtype=torch.float32).train()
    batch = _example(dtype=torch.float32)
    found = score_candidates(model, *_cut(batch))
    assert found.shape == (3, CANDIDATES, 3) and found.dtype.name == "float32"
    expected = torch.sigmoid(_masked(model.eval(), batch)).numpy()
    assert abs(found - expected).max() < 1e-6


def test_engine_refuses_candidates_of_other_users() -> None:
    past, candidates = _cut(_example())
    with pytest.raises(ValueError, match="same users in the same order"):
        score_candidates(_model(), past, replace(candidates, row=candidates.row.flip(0)))


def test_engine_refuses_candidates_without_their_session_where_sessions_count() -> None:
    past, candidates = _cut(_example())
    candidates.session[1, 2] = 0
    with pytest.raises(ValueError, match="give candidates their session"):
        score_candidates(_model(hides_session=True), past, candidates)
    score_candidates(_model(), past, candidates)
    candidates.request[1, 2] = PAD_REQUEST  # padding has none
    score_candidates(_model(hides_session=True), past, candidates)


def test_a_request_has_candidates() -> None:
    with pytest.raises(ValueError, match="1 or more candidates"):
        Request(context_events=10, candidates=0)


@pytest.mark.parametrize(
    ("scheme", "ratio", "passes"),
    [
        ("attn_mvp", Fraction(500 * 1001, 1500), (65, 17)),
        ("attn_mvp_without_lfa", Fraction(500 * 1001, 1500), (65, 17)),
        ("attn_lfa", Fraction(500 * 1001, 1500), (65, 17)),
        ("no_action", Fraction(500 * 1001, 1500), (65, 17)),
        ("interleaved", Fraction(500 * 2001, 2500), (125, 29)),
    ],
)
def test_rows_through_every_block_are_those_of_the_formula(
    scheme: str, ratio: Fraction, passes: tuple[int, int]
) -> None:
    model = _model(scheme=scheme)
    config = model.config
    full = token_passes(config, Request(context_events=1000, candidates=500))
    assert full.ratio == ratio
    small = token_passes(config, Request(context_events=CONTEXT, candidates=CANDIDATES))
    assert (small.recomputed, small.shared) == passes
    past, candidates = _cut(_user(0))
    for score, expected in ((recomputed, passes[0]), (shared, passes[1])):
        with counted_rows(model) as rows:
            score(model, past, candidates)
        assert rows == [expected] * config.layers


@pytest.mark.parametrize(
    ("scheme", "head", "pairs"),
    [  # context pairs of each attention that runs, then those of the candidates
        ("attn_mvp", "mlp", 2 * 66 + 3 * 5 * 12),
        ("attn_mvp_without_lfa", "linear", 1 * 66 + 2 * 5 * 12),
        ("attn_lfa", "parallel_dcn", 2 * 78 + 2 * 5 * 13 + 5 * 12),
        ("interleaved", "mmoe_dcn", 1 * 300 + 2 * 5 * 25),
    ],
)
def test_operations_are_those_that_torch_counts(scheme: str, head: str, pairs: int) -> None:
    model = _model(scheme=scheme, head=head, dtype=torch.float32)
    past, candidates = _cut(_user(0))
    past, candidates = (replace(part, actions=part.actions.float()) for part in (past, candidates))
    with FlopCounterMode(display=False) as counter:
        shared(model, past, candidates)
    by_kernel = counter.get_flop_counts()["Global"].items()
    linear = sum(count for kernel, count in by_kernel if "scaled_dot_product" not in str(kernel))
    if head == "mmoe_dcn":
        linear -= CANDIDATES * 2 * 2 * 4 * 8  # two gates times four experts of width 8: left out
    request = Request(context_events=CONTEXT, candidates=CANDIDATES)
    found = scoring_flops(model, request)
    assert found.shared == linear + pairs * 4 * model.config.width
    alone = scoring_flops(model, Request(context_events=CONTEXT, candidates=1))
    assert found.recomputed == CANDIDATES * alone.shared
