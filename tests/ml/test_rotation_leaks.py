"""Rankers that know the time leak nothing through it. Source: siren-rope 1.7 (9) and 1.8 (g)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ml.batches import Batch
from ml.layers.time_features import set_time_origin
from ml.ranking.sequence_ranker.model import SequenceRanker
from tests.ml.sequence_examples import one_batch, sequences, small_model

SCHEMES = ["attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved"]
LENGTH, EVENT = 18, 7  # event 7 is the second of request 2, events 6..8


def _model(scheme: str, rotation: str) -> SequenceRanker:
    model = small_model(scheme=scheme, rotation=rotation)
    set_time_origin(model, 1_700_000_000)
    return model


def _logits(model: SequenceRanker, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("rotation", ["time_offset", "siren"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_outcomes_and_times_reach_no_row_of_their_request_or_before(
    scheme: str, rotation: str
) -> None:
    model = _model(scheme, rotation)
    batch = one_batch(sequences([LENGTH]))
    before = _logits(model, batch)
    actions = batch.actions.clone()
    actions[:, EVENT] = 1 - actions[:, EVENT]
    after = _logits(model, replace(batch, actions=actions))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()
    time = batch.time.clone()
    time[:, 9:] += 200_000 * torch.arange(1, LENGTH - 8)
    after = _logits(model, replace(batch, time=time))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


def test_the_order_of_a_request_does_not_matter_to_its_scores() -> None:
    model = _model("attn_mvp", "siren")
    batch = one_batch(sequences([LENGTH]))
    order = torch.tensor([*range(15), 17, 15, 16])  # the last request, otherwise ordered
    other = replace(batch, item=batch.item[:, order], context=batch.context[:, order])
    torch.testing.assert_close(
        _logits(model, other)[:, 15:], _logits(model, batch)[:, order[15:]], rtol=1e-5, atol=1e-6
    )
