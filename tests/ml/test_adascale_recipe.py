"""The ranker's AdaScale recipe learns: not only its parts are right, the whole of them trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.features import SequenceData
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import recipe
from ml.ranking.sequence_ranker.training import build_model, memory_batches, ranker_job
from ml.training.steps import in_steps
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences
from tests.ml.toy_job import run_training


def _planted(num_users: int, *, seed: int, split: str) -> SequenceData:
    """Return sequences in which an even item gets all actions and an odd one none, but for 10 %."""
    data = sequences([18] * num_users, split=split, seed=seed)
    is_even = data.item % 2 == 0
    is_noise = np.random.default_rng(seed).random(len(is_even)) < 0.1
    return changed(data, actions=np.where(is_even ^ is_noise, 7, 0).astype(np.int32))


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_the_adascale_recipe_learns_which_items_are_liked(
    tmp_path: Path, batches_per_step: int
) -> None:
    inputs = RankerInputs(
        train=_planted(300, seed=0, split="train"),
        validation=_planted(100, seed=1, split="validation"),
        items=item_table(),
        spec=feature_spec(),
    )
    config = recipe("adascale")
    config = replace(
        config,
        model=replace(config.model, width=32, head_width=32, wide_crosses=1024),
        batches=replace(config.batches, events=256),
        training=replace(config.training, epochs=3),
    )
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=tmp_path)
    batches = memory_batches(model, inputs.train, config)
    job = in_steps(job, batches, step_batches=batches_per_step)
    # The noise alone leaves an NE of 0.47, the base rate alone one of 1.
    assert run_training(model, job, config.training).best["validation_ne"] < 0.7
