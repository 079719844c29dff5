"""Sequence rankers: no outcome leaks, padding changes nothing, switches do what they say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ml.batches import CONTEXT_COLUMNS, Batch
from ml.ranking.crosses import NUM_CROSSES
from ml.ranking.numeric_features import number_names
from ml.ranking.sequence_ranker.config import HEADS, SequenceRankerConfig
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.training.checkpoint import load_model, save_checkpoint
from tests.ml.sequence_examples import (
    ACTIONS,
    changed,
    expectation,
    feature_spec,
    item_table,
    one_batch,
    sequences,
    small_model,
)

SCHEMES = ["attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved"]
LENGTH, EVENT = 18, 7  # event 7 is the second of request 2, events 6..8
OUTCOMES = [*ACTIONS, "dwell"]


def _with_other_outcome(batch: Batch, outcome: str, *, event: int) -> Batch:
    actions, dwell = batch.actions.clone(), batch.dwell.clone()
    if outcome == "dwell":
        dwell[:, event] = (dwell[:, event] + 4) % 9
    else:
        bit = ACTIONS.index(outcome)
        actions[:, event, bit] = 1 - actions[:, event, bit]
    return replace(batch, actions=actions, dwell=dwell)


def _logits(model: SequenceRanker, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_outcome_reaches_later_requests_only(outcome: str, scheme: str) -> None:
    model = small_model(scheme=scheme)
    batch = one_batch(sequences([LENGTH, LENGTH]))
    before = _logits(model, batch)
    after = _logits(model, _with_other_outcome(batch, outcome, event=EVENT))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_does_not_reach_its_own_row_when_requests_are_single(outcome: str) -> None:
    model = small_model()
    batch = one_batch(sequences([LENGTH], request_size=1))
    before = _logits(model, batch)
    after = _logits(model, _with_other_outcome(batch, outcome, event=EVENT))
    assert torch.equal(before[:, : EVENT + 1], after[:, : EVENT + 1])
    assert (before[:, EVENT + 1 :] != after[:, EVENT + 1 :]).any(dim=-1).all()


def test_later_items_reach_no_earlier_request() -> None:
    model = small_model()
    data = sequences([LENGTH])
    item = data.item.copy()
    item[9:] = item[9:] % 40 + 1
    before = _logits(model, one_batch(data))
    after = _logits(model, one_batch(changed(data, item=item)))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any()


def test_swapping_the_past_outcomes_of_two_events_changes_later_rows_only() -> None:
    model = small_model()
    batch = one_batch(sequences([LENGTH]))
    order = torch.arange(LENGTH)
    order[3], order[6] = 6, 3
    assert not torch.equal(batch.actions[:, 3], batch.actions[:, 6])
    swapped = replace(batch, actions=batch.actions[:, order], dwell=batch.dwell[:, order])
    before, after = _logits(model, batch), _logits(model, swapped)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:9] != after[:, 6:9]).any()
    assert (before[:, 9:] != after[:, 9:]).any()


@pytest.mark.parametrize(
    "config", [{"scheme": "no_action"}, {"scheme": "attn_mvp_without_lfa", "action_weight": 0.0}]
)
def test_without_outcomes_in_values_and_pooling_the_actions_do_not_matter(config: Any) -> None:
    model = small_model(**config)
    batch = one_batch(sequences([LENGTH]))
    other = replace(batch, actions=1 - batch.actions, dwell=8 - batch.dwell)
    assert torch.equal(_logits(model, batch), _logits(model, other))


def test_right_padding_does_not_change_a_row() -> None:
    model = small_model()
    data = sequences([7, LENGTH])
    alone = _logits(model, one_batch(data.take(np.array([0]))))
    padded = _logits(model, one_batch(data))
    torch.testing.assert_close(padded[:1, :7], alone, rtol=1e-5, atol=1e-6)


def test_every_parameter_gets_a_gradient() -> None:
    model = small_model(uses_text_embedding=True).train()
    batch = one_batch(sequences([LENGTH, 9]))
    loss, weight = multi_task_loss(model(batch), batch)
    (loss / weight).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_overfits_one_batch() -> None:
    model = small_model().train()
    batch = one_batch(sequences([LENGTH, 9, 12]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = weight = torch.ones(())
    for _ in range(150):
        loss, weight = multi_task_loss(model(batch), batch)
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
    assert float((loss / weight).detach()) < 0.02


def test_loss_is_the_mean_over_actions_summed_over_targets() -> None:
    batch = one_batch(sequences([2]))
    batch = replace(batch, target=torch.tensor([[True, False]]))
    logits = torch.zeros(1, 2, 3)
    loss, weight = multi_task_loss(logits, batch)
    assert float(weight) == 1
    assert float(loss) == pytest.approx(np.log(2))


def test_saved_and_loaded_models_give_equal_scores(tmp_path: Path) -> None:
    model = small_model()
    batch = one_batch(sequences([LENGTH, 9]))
    folder = save_checkpoint(tmp_path / "model", model)
    other = small_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_model(folder, other)
    assert torch.equal(_logits(model, batch), _logits(other, batch))


@pytest.mark.parametrize(("scheme", "rows"), [("attn_mvp", 1), ("attn_lfa", 1), ("interleaved", 2)])
def test_rows_per_event(scheme: str, rows: int) -> None:
    model = small_model(scheme=scheme)
    seen = []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    _logits(model, one_batch(sequences([LENGTH])))
    assert seen == [rows * LENGTH] * 2


def test_a_session_can_be_hidden_from_its_own_events() -> None:
    # Requests of three, sessions of two requests: event 7 is of request 2 in session 2 (6..11).
    model = small_model(scheme="interleaved", hides_session=True)
    batch = one_batch(sequences([LENGTH]))
    before = _logits(model, batch)
    after = _logits(model, _with_other_outcome(batch, "click", event=EVENT))
    assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] != after[:, 12:]).any(dim=-1).all()


def test_undated_history_is_seen_by_a_model_that_hides_sessions() -> None:
    model = small_model(scheme="interleaved", hides_session=True)
    batch = replace(one_batch(sequences([LENGTH])), session=torch.zeros(1, LENGTH).int())
    before = _logits(model, batch)
    after = _logits(model, _with_other_outcome(batch, "click", event=EVENT))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


def test_a_position_offset_is_the_only_use_of_the_position() -> None:
    model = small_model(position_offsets=True)
    batch = one_batch(sequences([6]))
    assert model.offsets is not None
    offset_PA = model.offsets.offset_PA
    at = [_logits(model, _at_position(batch, place)) for place in (2, 5, 0, 61)]
    torch.testing.assert_close(at[1] - at[0], (offset_PA[5] - offset_PA[2]).expand_as(at[0]))
    torch.testing.assert_close(at[1] - at[2], offset_PA[5].expand_as(at[0]))
    assert torch.equal(at[2], at[3])


def _at_position(batch: Batch, position: int) -> Batch:
    context = batch.context.clone()
    context[..., CONTEXT_COLUMNS.index("position")] = position
    return replace(batch, context=context)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rotation", ["time_offset", "siren", "none"])
def test_every_part_gets_a_gradient(head: str, rotation: str) -> None:
    settings = {"late_numbers": True, "position_offsets": True, "calibration": "isotonic_layer"}
    settings["wide_crosses"] = 8
    model = small_model(head=head, rotation=rotation, scheme="attn_lfa", **settings).train()
    batch = one_batch(sequences([LENGTH, 9]))
    width = len(number_names(feature_spec()))
    numbers = torch.randn(*batch.item.shape, width, generator=torch.Generator().manual_seed(1))
    crosses = torch.arange(NUM_CROSSES).expand(*batch.item.shape, -1).remainder(9).int()
    filled = replace(batch, numbers=numbers, crosses=crosses)
    loss, weight = multi_task_loss(model(filled), batch)
    (loss / weight).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("head", HEADS)
def test_logits_start_around_the_base_rates(head: str) -> None:
    torch.manual_seed(0)
    config = SequenceRankerConfig(head=head, width=16, head_width=16)
    model = SequenceRanker(config, spec=feature_spec(), items=item_table()).eval()
    batch = one_batch(sequences([LENGTH] * 4))
    known = expectation(rates=(0.5, 0.1, 0.002))
    before = _logits(model, batch)
    model.start_from(known)
    after = _logits(model, batch)
    wanted = torch.logit(torch.tensor(known.rates, dtype=torch.float32))
    assert (after.mean(dim=(0, 1)) - wanted).abs().max() < 0.3
    torch.testing.assert_close(after - after[:1, :1], before - before[:1, :1], rtol=0, atol=1e-5)
    assert np.array_equal(model.expectation.weights, known.weights)


def test_the_head_knows_how_many_crosses_of_each_kind_are_remembered() -> None:
    model = small_model(wide_crosses=32)
    assert model.wide is not None
    with torch.no_grad():
        model.wide.embedding.weight.zero_()  # so that only their number is left
    batch = one_batch(sequences([LENGTH]))
    crosses = torch.zeros(1, LENGTH, NUM_CROSSES, dtype=torch.int32)
    none = _logits(model, replace(batch, crosses=crosses))
    seen = []
    for places in ([0], [1], [6], [1, 6], [13]):
        met = crosses.clone()
        met[0, EVENT, places] = 5
        logits = _logits(model, replace(batch, crosses=met))
        changed_rows = (logits != none).any(dim=-1)[0]
        assert changed_rows.tolist() == [row == EVENT for row in range(LENGTH)]
        seen.append(logits[0, EVENT])
    hour, first_tag, last_tag, two_tags, item = seen
    assert torch.equal(first_tag, last_tag)
    assert len({tuple(x.tolist()) for x in (hour, first_tag, two_tags, item)}) == 4


def test_unknown_parts_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"choose one of .*attn_mvp"):
        SequenceRankerConfig(scheme="attn")
    with pytest.raises(ValueError, match=r"choose one of .*mmoe"):
        SequenceRankerConfig(head="deep")
