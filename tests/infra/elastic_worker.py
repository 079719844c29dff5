"""A training whose workers may come and go: the ranker without anything that a replica draws."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infra.worker_loop import WorkerContext
from ml.batches import Batch
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fit import fit, prepare_folder
from ml.ranking.sequence_ranker.recipes import toy
from ml.training.config import CheckpointConfig
from ml.training.hdet.config import HdetConfig
from ml.training.job import Launch, TrainJob
from tests.ml.sequence_examples import feature_spec, item_table, sequences

STEP_BATCHES = 2
GO_FILE = "go"
_STEP_SECONDS = 0.4


def prepare(folder: Path) -> Path:
    """Write the data of three epochs of about thirty steps, a checkpoint every third."""
    recipe = toy()
    training = replace(
        recipe.training,
        epochs=3,
        patience=3,
        hdet=HdetConfig(spread_fraction=0.0, auto_lr=False),
        checkpoints=CheckpointConfig(steps=3),
    )
    inputs = RankerInputs(
        train=sequences([6 + row % 19 for row in range(300)]),
        validation=sequences([12] * 24, split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )
    recipe = replace(
        recipe,
        model=replace(recipe.model, dropout_fraction=0.0),
        batches=replace(recipe.batches, events=80),
        training=training,
    )
    return prepare_folder(inputs, recipe, folder=folder)


def train_slowly(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the prepared folder `config["data"]`, slowly until a file there says otherwise.

    Each worker writes down on which node it was last.
    """
    import ray

    folder = Path(config["data"])
    node = ray.get_runtime_context().get_node_id()
    (folder / f"node-of-{context.rank}").write_text(node)

    def slowly(job: TrainJob) -> TrainJob:
        def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            if not (folder / GO_FILE).exists():
                time.sleep(_STEP_SECONDS)
            return job.loss(model, batch)

        return replace(job, loss=loss)

    launch = Launch(step_batches=context.most_workers, change=slowly)
    result = fit(folder, report=context.report, prepare=context.prepare, launch=launch)
    context.keep(result.best, result.checkpoint, result.history)


def train_here(folder: Path) -> Path:
    """Train the same steps in this process, undisturbed; return the last checkpoint."""
    launch = Launch(step_batches=STEP_BATCHES)
    result = fit(folder, report=lambda *_: None, prepare=lambda m: m, launch=launch)
    last = int(result.history[-1]["step"])
    return folder / "checkpoints" / f"step-{last:09d}"
