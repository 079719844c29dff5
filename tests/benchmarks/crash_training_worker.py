"""What a worker of the drill runs: the ranker's training, which writes down each step's rows."""

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infra.worker_loop import WorkerContext
from ml.batches import Batch
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fit import prepare_folder
from ml.ranking.sequence_ranker.recipes import toy
from ml.training.checkpoint import load_state, newest_checkpoint
from ml.training.config import CheckpointConfig
from ml.training.hdet.controller import HdetConfig
from ml.training.job import Launch, TrainJob
from tests.ml.sequence_examples import feature_spec, item_table, sequences

EPOCHS = 3
PIDS_FILE = "stepping.jsonl"


def prepare(folder: Path) -> int:
    """Write the data of a training with dropout, HDET and checkpoints within the epoch.

    Returns:
        How many rows it trains on.
    """
    recipe = toy()
    training = replace(
        recipe.training,
        epochs=EPOCHS,
        patience=EPOCHS,
        hdet=HdetConfig(sync_steps=4, spread_fraction=0.3),
        checkpoints=CheckpointConfig(steps=7, keep_last=2),
    )
    inputs = RankerInputs(
        train=sequences([6 + row % 19 for row in range(600)]),
        validation=sequences([12] * 24, split="validation", seed=1),
        items=item_table(),
        spec=feature_spec(),
    )
    batches = replace(recipe.batches, events=80)
    prepare_folder(inputs, replace(recipe, batches=batches, training=training), folder=folder)
    return inputs.train.num_rows


def train_and_note(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the prepared folder `config["data"]`; a step takes `config["step_seconds"]` longer."""
    from ml.ranking.sequence_ranker.fit import fit

    folder, is_first = Path(config["data"]), True
    newest = newest_checkpoint(folder / "checkpoints")
    start = 0 if newest is None else int(load_state(newest)["step"])

    def noting(job: TrainJob) -> TrainJob:
        steps: deque[int] = deque()  # of the batches that were read and not yet trained on

        def epoch(number: int) -> Iterator[Batch | None]:
            for place, batch in enumerate(job.epoch(number)):
                step = number * job.steps_per_epoch + place
                if batch is not None and step >= start:
                    steps.append(step)
                yield batch

        def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            nonlocal is_first
            if is_first:  # from here on a kill costs steps
                _note(context.folder / PIDS_FILE, {"pid": os.getpid(), "rank": context.rank})
                is_first = False
            entry = {"step": steps.popleft(), "rows": batch.row.tolist()}
            _note(folder / f"steps-{context.rank}.jsonl", entry)
            time.sleep(config["step_seconds"])
            return job.loss(model, batch)

        return replace(job, epoch=epoch, loss=loss)

    launch = Launch(step_batches=context.most_workers, change=noting)
    result = fit(folder, report=context.report, prepare=context.prepare, launch=launch)
    context.keep(result.best, result.checkpoint, result.history)


def _note(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
