"""Train a ranker from a folder of prepared data: what each replica runs, whoever starts it.

The folder holds `train.npz`, `validation.npz`, the item table, the feature spec and the recipe;
it is written by `prepare_folder`, so that a replica needs no table, no JVM and no network.
"""

from collections.abc import Callable
from pathlib import Path

from ml.configuration import from_json, to_json
from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.training import (
    CONFIG_FILE,
    SPEC_FILE,
    build_model,
    ranker_job,
)
from ml.training.job import Prepare, Report, TrainJob, TrainResult
from ml.training.loop import train

_ITEMS_FILE = "items.npz"


def prepare_folder(inputs: RankerInputs, config: RankerConfig, *, folder: Path) -> Path:
    """Write everything that a training needs into a new folder.

    Args:
        inputs: Sequences, item table and feature spec.
        config: The whole recipe.
        folder: An empty or absent folder.

    Raises:
        FileExistsError: If the folder holds an earlier training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"training folder {folder} is not empty; choose another")
    inputs.train.save(folder / "train.npz")
    inputs.validation.save(folder / "validation.npz")
    inputs.items.save(folder / _ITEMS_FILE)
    (folder / SPEC_FILE).write_text(to_json(inputs.spec))
    (folder / CONFIG_FILE).write_text(to_json(config))
    return folder


def fit(
    folder: Path,
    *,
    report: Report,
    prepare: Prepare,
    change: Callable[[TrainJob], TrainJob] = lambda job: job,
) -> TrainResult:
    """Train the ranker of a prepared folder, continuing from its newest checkpoint.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
        change: Takes the job and returns the one to train, for callers that watch it.
    """
    config = from_json(RankerConfig, (folder / CONFIG_FILE).read_text())
    inputs = RankerInputs(
        train=SequenceData.load(folder / "train.npz"),
        validation=SequenceData.load(folder / "validation.npz"),
        items=ItemTable.load(folder / _ITEMS_FILE),
        spec=from_json(FeatureSpec, (folder / SPEC_FILE).read_text()),
    )
    model = build_model(config, spec=inputs.spec, items=inputs.items, train=inputs.train)
    job = ranker_job(model, inputs, config, folder=folder / "checkpoints")
    return train(model, change(job), config.training, report=report, prepare=prepare)
