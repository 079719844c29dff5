"""Training further on new events: only they count, from the last weights, near the anchors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.incremental import Continuation, anchor, incremental_job
from ml.ranking.sequence_ranker.recipes import RankerConfig, toy
from ml.ranking.sequence_ranker.training import build_model, ranker_job
from ml.training.checkpoint import load_model
from ml.training.fisher_prior import FisherPrior
from ml.training.loop import train
from tests.ml.sequence_examples import feature_spec, item_table, sequences


def _setup() -> tuple[RankerInputs, RankerConfig]:
    inputs = RankerInputs(
        train=sequences([12] * 12),
        validation=sequences([12] * 4, split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )
    recipe = toy()
    small = replace(recipe.model, width=16, head_width=16, layers=1)
    training = replace(recipe.training, epochs=2, learning_rate=0.02, patience=9, weight_decay=0.0)
    batches = replace(recipe.batches, events=48, item_dropout_fraction=0.0)
    return inputs, replace(recipe, model=small, batches=batches, training=training)


def _cold(inputs: RankerInputs, config: RankerConfig, folder: Path) -> Path:
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=folder)
    return train(
        model, job, config.training, report=lambda *_: None, prepare=lambda m: m
    ).checkpoint


@pytest.mark.usefixtures("one_thread")
def test_a_strong_prior_holds_the_weights_and_none_lets_them_go(tmp_path: Path) -> None:
    inputs, config = _setup()
    checkpoint = _cold(inputs, config, tmp_path / "cold")
    model = build_model(config, spec=inputs.spec, items=inputs.items)
    load_model(checkpoint, model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    held = anchor(model, inputs, config)
    moved = {}
    for name, strength in {"free": None, "held": 1e6}.items():
        prior = None
        if strength is not None:
            prior = FisherPrior(cold=held, previous=held, cold_share=0.5, strength=strength)
        continuation = Continuation(
            since=int(inputs.train.time[6]), previous=checkpoint, prior=prior
        )
        job = incremental_job(
            model, inputs, config, continuation=continuation, folder=tmp_path / name
        )
        assert all(torch.equal(p, start[n]) for n, p in model.named_parameters())
        train(model, job, config.training, report=lambda *_: None, prepare=lambda m: m)
        steps = [(held.fisher[n] * (p - start[n]) ** 2).sum() for n, p in model.named_parameters()]
        moved[name] = float(torch.stack(steps).sum().detach())
    assert moved["free"] > 0
    assert moved["held"] < 0.2 * moved["free"]


def test_nothing_new_is_refused(tmp_path: Path) -> None:
    inputs, config = _setup()
    model = build_model(config, spec=inputs.spec, items=inputs.items)
    later = Continuation(since=int(inputs.train.time.max()) + 1, previous=tmp_path)
    with pytest.raises(ValueError, match="nothing to train on"):
        incremental_job(model, inputs, config, continuation=later, folder=tmp_path / "new")
