"""Scalars beside the learning rate: reachable, neutral when unused, saved where needed."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.generative.prompt_ranker.loss import answer_loss
from ml.layers.mixing_block import MultiHead, Visibility
from ml.layers.mixture_heads import MultiGateMixture
from ml.layers.scalars import AttentionTemperature, LabelSmoothing
from ml.ranking.sequence_ranker.loss import event_losses, multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import toy
from ml.ranking.sequence_ranker.training import batches_for, build_model, sequence_losses
from ml.retrieval.sasrec.model import SasRec, SasRecConfig
from ml.training.hdet.hyper_parameters import (
    HyperParameter,
    dropout_of,
    hyper_parameters_of,
    label_smoothing_of,
    temperature_of,
    weight_decay_of,
)
from ml.training.parameters import parameter_groups
from tests.ml.sequence_examples import feature_spec, item_table, sequences


def _ranker(head: str = "mlp") -> SequenceRanker:
    config = toy()
    model = replace(config.model, width=16, head_width=16, head=head, dropout_fraction=0.2)
    return build_model(replace(config, model=model), spec=feature_spec(), items=item_table())


def test_dropouts_of_one_model_keep_their_ratios() -> None:
    attention = nn.MultiheadAttention(4, 2, dropout=0.1)
    model = nn.Sequential(nn.Dropout(0.2), nn.Dropout1d(0.4), attention, nn.Dropout(0.0))
    dropout = dropout_of(model)
    assert dropout.get() == 0.4
    dropout.set(0.6)
    assert [model[0].p, model[1].p, attention.dropout] == pytest.approx([0.3, 0.6, 0.15])
    assert model[3].p == 0.0
    assert dropout.get() == 0.6


def test_a_start_switches_on_dropouts_that_are_all_off() -> None:
    model = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.0))
    assert dropout_of(model, start=0.3).start() == 0.3
    assert [model[0].p, model[1].p] == [0.3, 0.3]


@pytest.mark.parametrize("head", ["mlp", "mmoe_dcn"])
def test_the_dropout_of_a_ranker_acts_from_the_next_step_on(head: str) -> None:
    model = _ranker(head).train()
    batch = next(batches_for(model, sequences([9] * 4), config=toy().batches).epoch(0))
    dropout = dropout_of(model)

    def spread_of_scores() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(torch.stack([model(batch) for _ in range(8)]).std(dim=0).mean())

    assert dropout.get() == pytest.approx(0.2)
    usual = spread_of_scores()
    dropout.set(0.8)
    assert spread_of_scores() > 1.5 * usual > 0
    gates = [module for module in model.modules() if isinstance(module, MultiGateMixture)]
    assert [gate.dropout_fraction for gate in gates] == pytest.approx([0.4] * len(gates))


def test_the_dropouts_of_a_sequence_encoder_are_reached() -> None:
    config = SasRecConfig(
        width=8, layers=1, heads=2, length=4, dropout=0.4, residual_dropout=0.1,
        attention_dropout=0.2,
    )  # fmt: skip
    model = SasRec(config, num_items=5, seed=0).train()
    items, places = torch.tensor([[1, 2, 3, 4]]), torch.arange(4)[None]
    dropout_of(model).set(1e-12)
    almost_off = model(items, places, None)
    torch.testing.assert_close(almost_off, model.eval()(items, places, None))


def test_weight_decay_is_that_of_the_groups_that_have_one() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    groups = parameter_groups(model, weight_decay=0.1)
    groups[1]["weight_decay"] = 0.05
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    decay = weight_decay_of(optimizer)
    assert decay.get() == 0.1
    decay.set(0.2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.1, 0.0]
    with pytest.raises(ValueError, match="no parameter group has a weight decay"):
        weight_decay_of(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0))


@pytest.mark.parametrize("sees_itself", [True, False])
def test_temperature_divides_the_scores_of_every_path_of_attention(sees_itself: bool) -> None:
    """Twice the temperature equals half the query projection, bit for bit."""
    torch.manual_seed(0)
    hot, halved = (MultiHead(width=8, heads=2, sees_itself=sees_itself) for _ in range(2))
    halved.load_state_dict(hot.state_dict())
    with torch.no_grad():
        halved.query_key.weight[:8] /= 2
    where = Visibility(angles=(torch.ones(1, 1, 5, 2), torch.zeros(1, 1, 5, 2)))
    x = torch.randn(3, 5, 8)

    def outputs(attention: MultiHead) -> tuple[Tensor, Tensor]:
        kept = attention.kept(attention.project(x, x, angles=where.angles)[1:])
        return attention(x, x, where=where), attention.attend(x, kept, where=where)

    usual = outputs(hot)
    temperature = temperature_of(hot)
    assert temperature.get() == 1.0
    temperature.set(2.0)
    for got, expected, before in zip(outputs(hot), outputs(halved), usual, strict=True):
        assert torch.equal(got, expected)
        assert not torch.allclose(got, before)
    temperature.set(1.0)
    assert all(torch.equal(a, b) for a, b in zip(outputs(hot), usual, strict=True))


def test_a_temperature_goes_with_the_weights_unless_it_is_neutral() -> None:
    model, other = _ranker(), _ranker()
    names = set(model.state_dict())
    assert not any("temperature" in name for name in names)
    temperature_of(model).set(1.25)
    state = model.state_dict()
    holders = sum(isinstance(module, AttentionTemperature) for module in model.modules())
    assert len(set(state) - names) == holders > 1
    other.load_state_dict(state, strict=True)
    assert temperature_of(other).get() == 1.25
    neutral = {name: value for name, value in state.items() if name in names}
    other.load_state_dict(neutral, strict=True)
    assert temperature_of(other).get() == 1.0


def test_label_smoothing_is_in_the_training_loss_and_in_nothing_else() -> None:
    model = _ranker().eval()
    batch = next(batches_for(model, sequences([9] * 4), config=toy().batches).epoch(0))
    logits, probe = model(batch), sequence_losses(model, batch)
    plain = multi_task_loss(logits, batch)[0]
    assert torch.equal(multi_task_loss(logits, batch, smoothing=model.label_smoothing)[0], plain)
    label_smoothing_of(model, start=0.2)
    smoothed = event_losses(logits, batch, smoothing=model.label_smoothing)
    # Binary cross-entropy is linear in the label: 0.9 of the loss, 0.1 of that of the opposite.
    flipped = event_losses(logits, replace(batch, actions=1 - batch.actions))
    torch.testing.assert_close(smoothed, 0.9 * event_losses(logits, batch) + 0.1 * flipped)
    assert torch.equal(sequence_losses(model, batch), probe)


def test_smoothed_labels_by_hand() -> None:
    smoothing = LabelSmoothing()
    labels = torch.tensor([0.0, 1.0])
    assert smoothing(labels) is labels
    smoothing.value = 0.1
    assert smoothing(labels).tolist() == pytest.approx([0.05, 0.95])


def test_smoothed_answers_by_hand() -> None:
    """With logits (ln 3, 0), yes has probability 3/4."""
    logits = torch.tensor([[math.log(3), 0.0]])
    expected = -0.95 * math.log(0.75) - 0.05 * math.log(0.25)
    assert float(answer_loss(logits, torch.tensor([1]), smoothing=0.1)) == pytest.approx(expected)


def test_hyper_parameters_come_by_name_with_their_starts() -> None:
    model = _ranker()
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=1.0)
    names = ("learning_rate", "weight_decay", "dropout", "temperature", "label_smoothing")
    starts = (("label_smoothing", 0.05), ("temperature", 1.5))
    made = hyper_parameters_of(names, model=model, optimizer=optimizer, starts=starts)
    assert {name: knob.start() for name, knob in made.items()} == pytest.approx(
        {"weight_decay": 0.1, "dropout": 0.2, "temperature": 1.5, "label_smoothing": 0.05}
    )
    assert {name for name, knob in made.items() if knob.only_while_training} == {
        "dropout",
        "label_smoothing",
    }


def test_what_a_model_does_not_have_is_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    for name, message in {
        "speed": "known are .*dropout.*learning_rate.*weight_decay",
        "dropout": "no dropout",
        "temperature": "no attention",
        "label_smoothing": "no label smoothing",
    }.items():
        with pytest.raises(ValueError, match=message):
            hyper_parameters_of([name], model=model, optimizer=optimizer)


@pytest.mark.parametrize(
    ("value", "message"), [(0.0, "start above 0"), (0.95, "outside its limits")]
)
def test_a_start_that_cannot_be_multiplied_or_is_out_of_limits_is_refused(
    value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dropout_of(nn.Sequential(nn.Dropout(value))).start()


@pytest.mark.parametrize("wrong", [{"lowest": 2.0}, {"lowest": -1.0}, {"spread_fraction": 1.0}])
def test_refuses_limits_and_spreads_out_of_range(wrong: dict[str, float]) -> None:
    settings: dict[str, Any] = {"lowest": 0.0, "highest": 1.0, "spread_fraction": 0.1, **wrong}
    with pytest.raises(ValueError, match="of scale"):
        HyperParameter(name="scale", get=lambda: 0.5, set=lambda _: None, **settings)
