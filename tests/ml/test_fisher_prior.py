"""The Fisher prior by hand on a two-weight model, and what it keeps of an older task."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.training.checkpoint import load_model, save_checkpoint
from ml.training.config import TrainConfig
from ml.training.fisher_prior import Anchor, FisherPrior, diagonal_fisher, save_fisher
from ml.training.hdet.controller import HdetConfig
from ml.training.job import TrainJob
from ml.training.loop import train
from tests.ml.sequence_examples import one_batch, sequences, small_model
from tests.ml.table_job import TableNetwork
from tests.ml.toy_job import examples, squared_errors


def _loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Half squared errors; the last column is the target."""
    errors = model(rows[:, :-1])[:, 0] - rows[:, -1]
    return errors.square().sum() / 2, torch.tensor(float(len(rows)))


def _model(*weights: float) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def _anchor(weights: list[float], fisher: list[float]) -> Anchor:
    return Anchor(
        weights={"weight": torch.tensor([weights])}, fisher={"weight": torch.tensor([fisher])}
    )


# Errors of weights (1, 2): 1 + 4 - 3 = 2 and 3 - 2 - 2 = -1; gradients (2, 4) and (-3, 1).
ROWS = torch.tensor([[1.0, 2, 3], [3, -1, 2]])


def test_fisher_of_single_examples_by_hand() -> None:
    model = _model(1.0, 2.0).train()
    fisher = diagonal_fisher(model, [ROWS[:1], ROWS[1:]], loss=_loss)
    assert fisher["weight"].tolist() == [[(4 + 9) / 2, (16 + 1) / 2]]
    assert model.training and model.weight.grad is None


def test_dropout_is_off_while_the_fisher_is_taken() -> None:
    plain = _model(1.0, 2.0)
    dropping = nn.Sequential(nn.Dropout(0.5), plain).train()
    fisher = diagonal_fisher(dropping, [ROWS[:1], ROWS[1:]], loss=_loss)
    assert fisher["1.weight"].tolist() == [[(4 + 9) / 2, (16 + 1) / 2]]
    assert dropping[0].training


def test_fisher_of_one_batch_adds_the_products() -> None:
    # the batch's gradient is (-1, 5)
    fisher = diagonal_fisher(_model(1.0, 2.0), [ROWS], loss=_loss)
    assert fisher["weight"].tolist() == [[1 / 2, 25 / 2]]


def test_fisher_of_batches_is_that_of_examples_where_the_training_has_ended() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(16_000, 3, generator=generator)
    noise = torch.randn(16_000, 1, generator=generator)
    weights = (0.5, -1.0, 2.0)
    rows = torch.cat([features, features @ torch.tensor([weights]).T + noise], dim=1)
    fisher = diagonal_fisher(_model(*weights), rows.split(8), loss=_loss)
    # E[(error x)^2] = 1 for every weight
    assert fisher["weight"][0].tolist() == pytest.approx([1, 1, 1], abs=0.1)


def test_frozen_and_unused_parameters() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "spare": nn.Linear(2, 1)})
    model["used"].bias.requires_grad_(False)

    def loss(model: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        return _loss(model["used"], rows)

    fisher = diagonal_fisher(model, [ROWS], loss=loss)
    assert set(fisher) == {"used.weight", "spare.weight", "spare.bias"}
    assert fisher["spare.weight"].tolist() == [[0.0, 0.0]]


def test_penalty_and_its_gradient_by_hand() -> None:
    prior = FisherPrior(
        cold=_anchor([0.0, 1.0], [2.0, 1.0]),
        previous=_anchor([1.0, 1.0], [4.0, 0.5]),
        cold_share=0.25,
        strength=3.0,
    )
    model = _model(2.0, 3.0)
    # to w0: 2 * 4 + 1 * 4 = 12; to w_(t-1): 4 * 1 + 0.5 * 4 = 6; 1.5 (0.25 * 12 + 0.75 * 6)
    penalty = prior.penalty(model)
    assert float(penalty.detach()) == pytest.approx(11.25)
    penalty.backward()
    assert model.weight.grad is not None
    # thrice 0.25 * 2 * 2 + 0.75 * 4 * 1, and thrice 0.25 * 1 * 2 + 0.75 * 0.5 * 2
    assert model.weight.grad[0].tolist() == pytest.approx([12.0, 3.75])
    loss, weight = prior.added_to(_loss)(_model(1.0, 2.0), ROWS)
    # errors 2 and -1: 2.5; penalty at (1, 2): 1.5 (0.25 (2 + 1) + 0.75 * 0.5) = 1.6875, twice
    assert (float(loss.detach()), float(weight)) == (pytest.approx(2.5 + 2 * 1.6875), 2.0)


def test_start_lies_between_the_anchors() -> None:
    prior = FisherPrior(
        cold=_anchor([0.0, 1.0], [1.0, 1.0]),
        previous=_anchor([4.0, 3.0], [1.0, 1.0]),
        cold_share=0.25,
        strength=1.0,
    )
    model = _model(9.0, 9.0)
    prior.start(model)
    assert model.weight.tolist() == [[3.0, 2.5]]


def test_training_ends_at_the_minimum_of_loss_and_penalty(tmp_path: Path) -> None:
    # One weight, x = 1, target 5: (w - 5)^2 / 2 + 2 / 2 (0.5 * 1 * w^2 + 0.5 * 2 * (w - 2)^2)
    # has slope (w - 5) + w + 2 (w - 2) = 0 at w = 2.25.
    prior = FisherPrior(
        cold=_anchor([0.0], [1.0]), previous=_anchor([2.0], [2.0]), cold_share=0.5, strength=2.0
    )
    model = _model(0.0)
    prior.start(model)
    batch = torch.tensor([[1.0, 5.0]] * 4)
    job = TrainJob(
        epoch=lambda _: [batch] * 150,
        steps_per_epoch=150,
        loss=prior.added_to(_loss),
        validate=lambda model: {"loss": float(prior.added_to(_loss)(model, batch)[0])},
        folder=tmp_path,
    )
    config = TrainConfig(
        epochs=1,
        learning_rate=0.05,
        weight_decay=0.0,
        monitor="loss",
        precision="float32",
        hdet=HdetConfig(spread_fraction=0.0, auto_lr=False),
    )
    train(model, job, config, report=lambda *_: None, prepare=lambda m: m)
    assert float(model.weight.detach()) == pytest.approx(2.25, abs=0.01)


def test_an_older_task_is_kept_where_the_new_one_says_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    # The old days move both features, the new ones only the second; both have noise.
    old = torch.randn(2000, 2, generator=generator)
    new = torch.randn(200, 2, generator=generator) * torch.tensor([0.02, 1.0])
    days = []
    for features, weights in ((old, (2.0, 1.0)), (new, (-9.0, 1.5))):
        noise = 0.3 * torch.randn(len(features), 1, generator=generator)
        days.append(torch.cat([features, features @ torch.tensor([weights]).T + noise], dim=1))
    anchor = Anchor.of(_model(2.0, 1.0), days[0].split(1), loss=_loss)

    def trained(strength: float) -> list[float]:
        prior = FisherPrior(cold=anchor, previous=anchor, cold_share=0.5, strength=strength)
        model = _model(0.0, 0.0)
        prior.start(model)
        loss = prior.added_to(_loss)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

        def step() -> Tensor:
            optimizer.zero_grad()
            total, weight = loss(model, days[1])
            (total / weight).backward()
            return total.detach() / weight

        optimizer.step(step)
        return model.weight[0].tolist()

    free, held = trained(0.0), trained(1.0)
    assert abs(free[0] - 2.0) > 5  # forgot
    assert abs(held[0] - 2.0) < 0.2  # kept
    assert abs(held[1] - 1.5) < 0.1  # and learned


def test_holds_a_sequence_ranker_at_its_anchor() -> None:
    model, batch = small_model(), one_batch(sequences([6, 9]))

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return multi_task_loss(model(batch), batch)

    anchor = Anchor.of(model, [batch], loss=loss)
    assert set(anchor.fisher) == {name for name, _ in model.named_parameters()}
    prior = FisherPrior(cold=anchor, previous=anchor, cold_share=0.3, strength=2.0)
    total, weight = prior.added_to(loss)(model, batch)
    plain, _ = loss(model, batch)
    assert torch.equal(total, plain)  # at the anchor there is nothing to pay
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-3
    moved, _ = prior.added_to(loss)(model, batch)
    information = sum(float(f.sum()) for f in anchor.fisher.values())
    paid = float((moved - loss(model, batch)[0]).detach() / weight)
    assert information > 1 and paid == pytest.approx(information * 1e-6, rel=0.02)


def test_save_and_load_beside_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    anchor = Anchor.of(model, [torch.randn(8, 3)], loss=_loss)
    folder = save_checkpoint(tmp_path / "step-1", model)
    save_fisher(folder, anchor.fisher)
    again = Anchor.load(folder)
    assert set(again.weights) == {name for name, _ in model.named_parameters()}
    for name, fisher in anchor.fisher.items():
        assert torch.equal(again.fisher[name], fisher)
        assert torch.equal(again.weights[name], anchor.weights[name])
    load_model(folder, model)
    prior = FisherPrior(cold=again, previous=again, cold_share=0.5, strength=1.0)
    assert float(prior.penalty(model).detach()) == 0.0


def test_refuses_what_does_not_fit(tmp_path: Path) -> None:
    anchor = _anchor([1.0, 2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="name different parameters"):
        _anchor([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not negative"):
        _anchor([1.0], [-1.0])
    with pytest.raises(ValueError, match="cold_share must lie"):
        FisherPrior(cold=anchor, previous=anchor, cold_share=1.1, strength=1.0)
    with pytest.raises(ValueError, match="two anchors are of different models"):
        FisherPrior(cold=anchor, previous=_anchor([1.0], [1.0]), cold_share=0.5, strength=1.0)
    prior = FisherPrior(cold=anchor, previous=anchor, cold_share=0.5, strength=1.0)
    with pytest.raises(ValueError, match="anchors are of another model"):
        prior.penalty(_model(1.0))
    with pytest.raises(ValueError, match="batches with weight"):
        diagonal_fisher(_model(1.0), [], loss=_loss)
    with pytest.raises(ValueError, match="no parameter that is trained"):
        diagonal_fisher(_model(1.0).requires_grad_(False), [ROWS], loss=_loss)
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        Anchor.load(tmp_path)


@pytest.mark.parametrize("kind", ["sparse", "sharded"])
def test_tables_whose_rows_are_not_all_moved_are_refused_by_name(kind: str) -> None:
    model, dense = TableNetwork(kind), TableNetwork("dense")
    rows = list(examples()[:2])
    message = "table 'ids' has sparse gradients or is cut by rows; set .*item_table='replicated'"
    with pytest.raises(ValueError, match=message):
        Anchor.of(model, rows, loss=squared_errors)
    anchor = Anchor.of(dense, rows, loss=squared_errors)
    prior = FisherPrior(cold=anchor, previous=anchor, cold_share=0.5, strength=1.0)
    with pytest.raises(ValueError, match=message):
        prior.added_to(squared_errors)(model, rows[0])
