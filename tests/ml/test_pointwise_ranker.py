"""Point-wise rankers: no outcome leaks, each part equals its definition, every part learns."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import prelu

from ml.configuration import from_json, to_json
from ml.ranking.pointwise_ranker.batches import PointBatch
from ml.ranking.pointwise_ranker.config import (
    HISTORIES,
    INTERACTIONS,
    PointwiseConfig,
    PointwiseRecipe,
)
from ml.ranking.pointwise_ranker.history import PositiveSequence, TargetAttention, TransAct
from ml.ranking.pointwise_ranker.loss import multi_task_loss
from ml.ranking.pointwise_ranker.model import PointwiseRanker
from ml.ranking.pointwise_ranker.recipes import RECIPES, recipe
from ml.ranking.pointwise_ranker.training import CONFIG_FILE, SPEC_FILE, load_pointwise
from ml.training.checkpoint import save_checkpoint
from tests.ml.pointwise_examples import in_batches_of, logits, one_batch, small_model, small_recipe
from tests.ml.sequence_examples import (
    ACTIONS,
    changed,
    expectation,
    feature_spec,
    item_table,
    sequences,
)

EVENT = 7  # the second of request 2, events 6..8
DWELL_HISTORIES = ("target_attention", "transact")


def _assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("outcome", [*ACTIONS, "dwell"])
def test_an_outcome_reaches_later_requests_only(history: str, outcome: str) -> None:
    chosen = small_recipe(history=history, interaction="residual_dcn")
    model = small_model(chosen)
    data = sequences([18, 18])
    column = (data.dwell if outcome == "dwell" else data.actions).copy()
    if outcome == "dwell":
        column[EVENT] = (column[EVENT] + 4) % 9
        other = changed(data, dwell=column)
    else:
        column[EVENT] ^= 1 << ACTIONS.index(outcome)
        other = changed(data, actions=column)
    before, after = logits(data, chosen, model), logits(other, chosen, model)
    _assert_close(after[:9], before[:9])
    _assert_close(after[18:], before[18:])
    moved = np.abs(after - before).max(axis=1)[9:16]  # event 7 is the oldest of 8 at event 15
    if outcome == "dwell" and history not in DWELL_HISTORIES:
        assert moved.max() < 1e-4
    else:
        assert moved.min() > 1e-4


@pytest.mark.parametrize("history", HISTORIES)
def test_a_candidate_does_not_see_the_others_of_its_request(history: str) -> None:
    chosen = small_recipe(history=history)
    model = small_model(chosen)
    data = sequences([18])
    item = data.item.copy()
    item[EVENT] = item[EVENT] % 40 + 1
    before, after = logits(data, chosen, model), logits(changed(data, item=item), chosen, model)
    same = [0, 1, 2, 3, 4, 5, 6, 8]
    _assert_close(after[same], before[same])
    assert np.abs(after[EVENT] - before[EVENT]).max() > 1e-3


@pytest.mark.parametrize("history", HISTORIES)
def test_padding_and_batch_size_do_not_change_a_score(history: str) -> None:
    chosen = small_recipe(history=history, interaction="dcn_v2", history_length=20)
    model = small_model(chosen)
    data = sequences([4, 30, 11])
    together = logits(data, chosen, model)
    alone = logits(data, in_batches_of(chosen, 1), model)
    _assert_close(alone, together)
    row = logits(data.take(np.array([2])), chosen, model)
    _assert_close(row, together[34:])


def test_target_attention_equals_the_activation_unit_on_q_k_difference_and_product() -> None:
    chosen = small_recipe(history="target_attention")
    model = small_model(chosen)
    part = model.history
    assert isinstance(part, TargetAttention)
    batch = one_batch(sequences([12]), chosen, model)
    generator = torch.Generator().manual_seed(1)
    w_query, w_key, w_difference, w_product = torch.randn(4, 8, 8, generator=generator)
    with torch.no_grad():
        part.query.weight.copy_(w_query + w_difference)
        part.key.weight.copy_(w_key - w_difference)
        part.product.weight.copy_(w_product)
        candidates = model.items(batch.item)
        found = part(candidates, model.items, batch)
        keys = part.key_norm(model.items(batch.history.item) + part.outcomes(batch.history))
        joint = torch.cat([w_query, w_key, w_difference, w_product], dim=1)
        for n, q in enumerate(part.query_norm(candidates)):
            total = torch.zeros(8)
            r = int(batch.request[n])
            for step in range(keys.shape[1]):
                if batch.history.valid[r, step]:
                    k = keys[r, step]
                    hidden = joint @ torch.cat([q, k, q - k, q * k]) + part.query.bias
                    total += part.weight(prelu(hidden, part.activation.weight)) * k
            torch.testing.assert_close(found[n], total, rtol=1e-4, atol=1e-5)


def test_transact_reads_the_last_five_in_order_and_the_rest_as_a_set() -> None:
    chosen = small_recipe(history="transact")
    model = small_model(chosen)
    part = model.history
    assert isinstance(part, TransAct)
    batch = one_batch(sequences([27], request_size=9), chosen, model)
    history = replace(batch.history, age=torch.ones_like(batch.history.age))
    features = _features(model, replace(batch, history=history))
    assert features.shape == (27, 6 * 20)
    assert not features[:9].any()  # no history: nothing
    # Eight events: the three oldest are a set, the last five are not.
    for order, same in (([2, 0, 1, 3, 4, 5, 6, 7], True), ([0, 1, 2, 4, 3, 5, 6, 7], False)):
        turned = replace(
            history,
            item=history.item[:, order],
            actions=history.actions[:, order],
            dwell=history.dwell[:, order],
        )
        moved = (_features(model, replace(batch, history=turned)) - features)[18:].abs()
        assert (float(moved.max()) < 1e-4) == same
    # The first of six parts is the maximum over all tokens, so no smaller than the last five's.
    parts = features[18:].unflatten(-1, (6, 20))
    assert (parts[:, :1] >= parts[:, 1:] - 1e-6).all()


def _features(model: PointwiseRanker, batch: PointBatch) -> torch.Tensor:
    with torch.no_grad():
        assert model.history is not None
        return model.history(model.items(batch.item), model.items, batch)


def test_positive_sequence_equals_the_encoder_on_each_unpadded_history() -> None:
    chosen = small_recipe(history="sasrec", interaction="linear", history_length=4)
    model = small_model(chosen)
    part = model.history
    assert isinstance(part, PositiveSequence)
    data = sequences([18, 12])
    batch = one_batch(data, chosen, model)
    found = _features(model, batch)
    clicked = data.labels(0) > 0
    target_request = data.request
    with torch.no_grad():
        for n in range(30):
            place = int(batch.place[n])
            row_start = 0 if place < 18 else 18
            earlier = [
                int(data.item[m])
                for m in range(row_start, place)
                if clicked[m] and target_request[m] < target_request[place]
            ][-4:]
            state = part.nothing_D
            if earlier:
                vectors = model.items(torch.tensor([earlier])) + part.places.weight[: len(earlier)]
                state = part.encoder(vectors, None)[0, -1]
            expected = state * model.items(torch.tensor([int(data.item[place])]))[0]
            torch.testing.assert_close(found[n], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("history", "interaction"),
    [*product(HISTORIES[1:], ("mlp",)), *product(("none",), INTERACTIONS)],
)
def test_every_parameter_gets_a_gradient(history: str, interaction: str) -> None:
    chosen = small_recipe(
        history=history,
        interaction=interaction,
        calibration="isotonic_layer",
        dense_gating=True,
    )
    model = small_model(chosen).train()
    batch = one_batch(sequences([18, 9]), chosen, model)
    loss, weight = multi_task_loss(model(batch), batch)
    (loss / weight).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_overfits_one_batch(name: str) -> None:
    parts = recipe(name).model
    chosen = small_recipe(
        history=parts.history,
        interaction=parts.interaction,
        calibration=parts.calibration,
        dense_gating=parts.dense_gating,
    )
    model = small_model(chosen).train()
    batch = one_batch(sequences([12, 9]), chosen, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=40)
    loss = weight = torch.ones(())
    for _ in range(100):
        loss, weight = multi_task_loss(model(batch), batch)
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        warmup.step()
    assert float((loss / weight).detach()) < 0.05


def test_loss_is_the_mean_over_actions_summed_over_targets() -> None:
    chosen = small_recipe()
    batch = one_batch(sequences([4]), chosen, small_model(chosen))
    loss, weight = multi_task_loss(torch.zeros(4, 3), batch)
    assert float(weight) == 4
    assert float(loss) == pytest.approx(4 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("history", HISTORIES)
def test_saved_and_loaded_models_give_equal_scores(history: str, tmp_path: Path) -> None:
    chosen = small_recipe(history=history, interaction="residual_dcn", calibration="isotonic_layer")
    model = small_model(chosen)
    texts = {CONFIG_FILE: to_json(chosen), SPEC_FILE: to_json(feature_spec())}
    folder = save_checkpoint(tmp_path / "model", model, texts=texts)
    other, stored = load_pointwise(folder)
    data = sequences([18, 9])
    assert stored == chosen
    assert np.array_equal(logits(data, chosen, model), logits(data, stored, other))


def test_logits_start_at_the_base_rates_and_the_isotonic_layer_as_the_identity() -> None:
    chosen = small_recipe(interaction="dcn_v2", calibration="isotonic_layer")
    model = small_model(chosen)
    data = sequences([18])
    calibrated = logits(data, chosen, model)
    assert model.calibration is not None
    model.calibration = None
    plain = logits(data, chosen, model)
    assert not np.allclose(calibrated, plain, atol=1e-3)  # its weights were made random
    fresh = PointwiseRanker(
        chosen.model,
        spec=feature_spec(),
        items=item_table(),
        expectation=expectation(),
        history_length=8,
    )
    start = torch.sigmoid(fresh.heads.bias.detach())
    torch.testing.assert_close(start, torch.tensor([0.5, 0.2, 0.1]))
    fresh.eval()
    with_layer = logits(data, chosen, fresh)
    fresh.calibration = None
    _assert_close(logits(data, chosen, fresh), with_layer)


def test_recipes_name_their_parts() -> None:
    parts = {
        name: (r.history, r.interaction, r.calibration, r.dense_gating)
        for name, r in ((name, recipe(name).model) for name in RECIPES)
    }
    assert parts == {
        "dcn_v2": ("none", "dcn_v2", "none", False),
        "dcn_v2_low_rank": ("none", "dcn_v2_low_rank", "none", False),
        "din": ("target_attention", "mlp", "none", False),
        "sasrec": ("sasrec", "linear", "none", False),
        "lirank": ("transact", "residual_dcn", "isotonic_layer", True),
    }
    assert recipe("lirank").training.warmup_fraction == 0.5
    assert {recipe(name).batches.history_length for name in RECIPES} == {50}
    for name in RECIPES:
        assert from_json(PointwiseRecipe, to_json(recipe(name))) == recipe(name)


def test_unknown_parts_and_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="no point-wise recipe 'magic'"):
        recipe("magic")
    for name in ("history", "interaction", "calibration"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            replace(PointwiseConfig(), **{name: "magic"})
