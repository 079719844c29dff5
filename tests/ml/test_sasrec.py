"""SASRec: what it may see, what packing may not change, and that its loss is the exact one."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ml.layers.product import product
from ml.retrieval.leave_one_out import NextItems, leave_one_out
from ml.retrieval.sasrec.batches import pack, shuffled_batches, training_rows, training_windows
from ml.retrieval.sasrec.fit import batch_loss, fit, last_states, next_item_metrics, next_item_ranks
from ml.retrieval.sasrec.loss import full_softmax_loss
from ml.retrieval.sasrec.model import CausalEncoder, SasRec, SasRecConfig
from ml.retrieval.sasrec.recipes import toy
from tests.benchmarks.sasrec_plain import PlainSasRec, padded

NUM_ITEMS = 40
SMALL = SasRecConfig(width=16, layers=2, heads=2, length=8, dropout=0.0, attention_dropout=0.0)


def _ids(*items: int) -> np.ndarray:
    return np.array(items, dtype=np.int64)


def _model(config: SasRecConfig = SMALL) -> SasRec:
    model = SasRec(config, num_items=NUM_ITEMS, seed=0)
    with torch.no_grad():  # weights of a trained model's size, so that differences would show
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=_generator()) * 0.3)
    return model


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _windows(count: int, *, longest: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, NUM_ITEMS, draw.integers(2, longest + 1)) for _ in range(count)]


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_later_item_changes_no_earlier_state(norm_first: bool) -> None:
    model = _model(replace(SMALL, norm_first=norm_first)).eval()
    items = torch.tensor([[3, 1, 4, 1, 5, 9]])
    changed = items.clone()
    changed[0, 4] = 20
    places = torch.arange(6)[None]
    for segments in (None, torch.ones(1, 6, dtype=torch.bool)):
        before, after = (model(ids, places, segments) for ids in (items, changed))
        assert torch.equal(before[:, :4], after[:, :4])
        assert (before[:, 4:] - after[:, 4:]).abs().amax(dim=-1).min() > 1e-3


def test_packed_rows_equal_one_window_per_row() -> None:
    model = _model().eval()
    windows = _windows(30, longest=8)
    rows = pack(windows, length=8)
    assert len(rows.items) < 25 and rows.segments is not None
    packed = model(rows.items, rows.places, rows.segments).flatten(0, 1)[rows.index]
    alone = torch.cat(
        [
            model(torch.from_numpy(w)[None], torch.arange(len(w))[None], None)[0]  # row by row
            for w in windows
        ]
    )
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    ends = np.cumsum([len(window) for window in windows]) - 1
    torch.testing.assert_close(last_states(model, windows), alone[ends], rtol=1e-5, atol=1e-5)


def test_windows_are_packed_the_longest_first_where_they_fit_best() -> None:
    rows = pack([_ids(7, 8), _ids(1, 2, 3), _ids(9), _ids(4, 5, 6)], length=5)
    assert rows.items.tolist() == [[1, 2, 3, 7, 8], [4, 5, 6, 9, 0]]
    assert rows.places.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 0]]
    assert rows.segments is not None
    assert rows.segments.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 2, 0]]
    assert rows.index.tolist() == [3, 4, 0, 1, 2, 8, 5, 6, 7]
    assert rows.last.tolist() == [4, 2, 8, 7]
    one_each = pack([_ids(1, 2), _ids(3)], length=2)
    assert one_each.segments is None and one_each.items.tolist() == [[1, 2], [3, 0]]


def test_every_item_but_the_first_is_a_target_once() -> None:
    windows = training_windows([_ids(0, 1, 2, 3, 4, 5, 6), _ids(7), _ids(8, 9)], length=3)
    assert [w.tolist() for w in windows] == [[3, 4, 5, 6], [0, 1, 2, 3], [8, 9]]
    rows = training_rows(windows, length=3)
    assert rows.targets is not None and rows.targets.tolist() == [4, 5, 6, 1, 2, 3, 9]
    assert rows.items.flatten()[rows.index].tolist() == [3, 4, 5, 0, 1, 2, 8]


def test_an_epoch_takes_every_window_once_in_an_order_of_its_own() -> None:
    windows = [_ids(item, item) for item in range(10)]
    epochs = [
        [b.targets.tolist() for b in shuffled_batches(windows, size=4, length=2, seed=(0, n))]  # type: ignore[union-attr]
        for n in (0, 1)
    ]
    assert [len(batch) for batch in epochs[0]] == [4, 4, 2]
    assert [sorted(chain.from_iterable(epoch)) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("windows", "said"),
    [([], "cut or drop"), ([_ids()], "cut or drop"), ([_ids(1, 2, 3)], "1 to 2 items")],
)
def test_windows_that_fit_no_row_are_refused(windows: list[np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pack(windows, length=2)


@pytest.mark.parametrize("chunk_rows", [1, 7, 64])
def test_the_chunked_loss_and_its_gradients_are_those_of_all_logits(chunk_rows: int) -> None:
    states = (torch.randn(20, 16, generator=_generator()) * 3).requires_grad_()
    items = torch.randn(NUM_ITEMS, 16, generator=_generator()).requires_grad_()
    targets = torch.arange(20) % 13
    expected = cross_entropy(states @ items.T, targets, reduction="sum")
    wanted = torch.autograd.grad(expected, [states, items])
    loss = full_softmax_loss(states, items, targets, chunk_rows=chunk_rows)
    found = torch.autograd.grad(2 * loss, [states, items])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, 2 * theirs, rtol=1e-5, atol=1e-5)


def test_the_loss_holds_far_from_zero_and_asks_for_what_fits() -> None:
    states, items = torch.full((1, 2), 100.0), torch.tensor([[10.0, 10.0], [9.0, 9.0]])
    # Logits 2,000 and 1,800: the right item costs nothing, the wrong one 200.
    assert float(full_softmax_loss(states, items, torch.tensor([0]))) == 0.0
    assert float(full_softmax_loss(states, items, torch.tensor([1]))) == 200.0
    with pytest.raises(ValueError, match="one state per target"):
        full_softmax_loss(states, items, torch.tensor([0, 1]))


def test_the_product_is_the_plain_one_for_every_layout() -> None:
    a, b = torch.randn(5, 3, generator=_generator()), torch.randn(4, 3, generator=_generator())
    for left, right in ((a, b), (a.t().contiguous().t(), b), (a, b.t().contiguous().t())):
        torch.testing.assert_close(product(left, right), torch.einsum("rk,ck->rc", a, b))
    assert product(a[:0], b).shape == (0, 4)
    assert product(a.double(), b.double()).dtype == torch.float64


def test_same_weights_give_the_loss_of_the_plain_encoder() -> None:
    model, windows = _model(), _windows(25, longest=9)
    plain = PlainSasRec(SMALL, num_items=NUM_ITEMS)
    plain.take_weights(model)
    expected = plain.loss(*padded(windows, length=8, padding=NUM_ITEMS))
    loss, count = batch_loss(model, training_rows(windows, length=8))
    assert abs(float((loss / count).detach()) - float(expected.detach())) < 1e-5
    (loss / count).backward()
    expected.backward()
    found, wanted = model.items.weight.grad, plain.items.weight.grad
    assert found is not None and wanted is not None
    torch.testing.assert_close(found, wanted[:-1], rtol=1e-4, atol=1e-6)


def test_the_gradient_reaches_every_parameter() -> None:
    model = _model()
    loss, _ = batch_loss(model, training_rows(_windows(10, longest=9), length=8))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_one_batch_is_learnt_by_heart() -> None:
    model = SasRec(SMALL, num_items=NUM_ITEMS, seed=0)
    batch = training_rows([_ids(*range(start, start + 8)) for start in (0, 10, 20)], length=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, count = batch_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach() / count))
    assert losses[0] > 3.5  # ln 40 = 3.69: at first every item is as likely
    assert losses[-1] < 0.05


def test_the_encoder_takes_vectors_and_a_mask_of_valid_places() -> None:
    encoder = CausalEncoder(SMALL).eval()
    vectors = torch.randn(1, 5, 16, generator=_generator())
    left = torch.cat([torch.full((1, 2, 16), 50.0), vectors], dim=1)
    valid = torch.tensor([[False, False, True, True, True, True, True]])
    torch.testing.assert_close(encoder(left, valid)[:, 2:], encoder(vectors, None))


def test_ranks_count_ties_half_and_may_leave_out_what_was_seen() -> None:
    model = _model().eval()
    state = last_states(model, [_ids(3, 5)])[0]
    with torch.no_grad():
        model.items.weight[:] = 0
        for item, score in {10: 3.0, 11: 2.0, 12: 2.0, 3: 4.0}.items():
            model.items.weight[item] = score * state / state.square().sum()
    # The table holds the inputs too, so the state is another one now; ask for its scores.
    state = last_states(model, [_ids(3, 5)])[0]
    scores = (model.items.weight @ state).tolist()
    assert scores[3] > scores[10] > scores[11] == scores[12] > scores[20] == 0.0
    queries = NextItems(histories=[_ids(3, 5)] * 4, targets=_ids(3, 10, 11, 20))
    # 36 items score 0; without the four above, half of 35 ties stand before item 20.
    assert next_item_ranks(model, queries).tolist() == [1, 2, 3, 4 + 1 + 35 // 2]
    unseen = next_item_ranks(model, queries, hide_seen=True)
    assert unseen.tolist() == [1, 1, 2, 3 + 1 + 34 // 2]


def test_metrics_are_those_worked_out_by_hand() -> None:
    metrics = next_item_metrics(np.array([1, 3, 7, 30]), prefix="test")
    assert metrics["test_recall_5"] == 0.5 and metrics["test_recall_10"] == 0.75
    assert metrics["test_ndcg_5"] == pytest.approx((1 + 0.5) / 4)
    assert metrics["test_ndcg_10"] == pytest.approx((1 + 0.5 + 1 / 3) / 4)


def test_the_last_item_is_the_test_and_the_one_before_it_validation() -> None:
    split = leave_one_out([_ids(1, 2, 3, 4), _ids(5, 6, 7)])
    assert [s.tolist() for s in split.train] == [[1, 2], [5]]
    assert [s.tolist() for s in split.validation.histories] == [[1, 2], [5]]
    assert split.validation.targets.tolist() == [3, 6]
    assert [s.tolist() for s in split.test.histories] == [[1, 2, 3], [5, 6]]
    assert split.test.targets.tolist() == [4, 7]
    with pytest.raises(ValueError, match="1 of 2 sequences have fewer than 3 items"):
        leave_one_out([_ids(1, 2, 3), _ids(1, 2)])


def test_fit_learns_an_order_and_returns_the_best_epoch(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    starts = draw.integers(0, NUM_ITEMS, 300)
    sequences = [(start + np.arange(draw.integers(4, 10))) % NUM_ITEMS for start in starts]
    split = leave_one_out(sequences)
    recipe = toy()
    recipe = replace(recipe, training=replace(recipe.training, epochs=12))
    model, result = fit(split, recipe=recipe, num_items=NUM_ITEMS, folder=tmp_path)
    ranks = next_item_ranks(model, split.validation)
    assert next_item_metrics(ranks, prefix="validation")["validation_ndcg_10"] == pytest.approx(
        max(epoch["validation_ndcg_10"] for epoch in result.history)
    )
    assert (
        next_item_metrics(next_item_ranks(model, split.test), prefix="test")["test_ndcg_10"] > 0.9
    )
    with pytest.raises(ValueError, match="not below num_items 30"):
        fit(split, recipe=recipe, num_items=30, folder=tmp_path / "b")


def test_the_weights_of_the_best_epoch_are_returned_when_later_ones_are_worse(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(1)  # nothing to learn: validation rises and falls by chance
    split = leave_one_out([draw.integers(0, NUM_ITEMS, 6) for _ in range(60)])
    recipe = replace(toy(), training=replace(toy().training, epochs=6, patience=6))
    model, result = fit(split, recipe=recipe, num_items=NUM_ITEMS, folder=tmp_path)
    found = [epoch["validation_ndcg_10"] for epoch in result.history]
    assert len(found) == 6 and max(found) > found[-1]
    metrics = next_item_metrics(next_item_ranks(model, split.validation), prefix="validation")
    assert metrics["validation_ndcg_10"] == pytest.approx(max(found))
