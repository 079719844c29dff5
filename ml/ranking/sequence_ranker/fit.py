"""Train a ranker from a folder of prepared data: what each replica runs, whoever starts it.

The folder holds the validation split, the item table, the feature spec, the recipe, what was
fitted on the train split (once, and not by every replica), and that split in one of two forms.
`train.npz` holds its rows: a replica then needs no table, no JVM and no network. Otherwise
`rows.json` says where they are, at which version, and a replica reads them while it trains.
"""

from pathlib import Path

from ml.configuration import from_json, to_json
from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.fitted import Fitted, fit_train_split
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.training import (
    CONFIG_FILE,
    SPEC_FILE,
    batches_job,
    build_model,
    memory_batches,
    streamed_batches,
)
from ml.row_chunks import RowChunks, RowsReference
from ml.training.checkpoint import CHECKPOINTS_FOLDER
from ml.training.job import PLAIN_LAUNCH, Launch, Prepare, Report, TrainResult
from ml.training.loop import train
from ml.training.steps import in_steps

_TRAIN_FILE, _VALIDATION_FILE, _ITEMS_FILE = "train.npz", "validation.npz", "items.npz"
_FITTED_FILE, _ROWS_FILE = "fitted.npz", "rows.json"


def prepare_folder(
    inputs: RankerInputs,
    config: RankerConfig,
    *,
    folder: Path,
    rows: RowsReference | None = None,
) -> Path:
    """Write everything that a training needs into a new folder.

    Args:
        inputs: Sequences, item table and feature spec.
        config: The whole recipe.
        folder: An empty or absent folder.
        rows: Where the rows of the train split are, for a recipe that streams them; the split
            in `inputs` is fitted on, and not written.

    Raises:
        FileExistsError: If the folder holds an earlier training.
        ValueError: If the recipe streams rows and it is not said where they are, or they are
            and it does not.
    """
    if (config.stream is None) != (rows is None):
        raise ValueError(
            "a recipe with a stream needs to know where its rows are, and no other does: give "
            "rows if and only if the recipe's stream is set"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"training folder {folder} is not empty; choose another")
    fitted = fit_train_split(
        inputs.train, items=inputs.items, spec=inputs.spec, config=config.model
    )
    fitted.save(folder / _FITTED_FILE)
    if rows is None:
        inputs.train.save(folder / _TRAIN_FILE)
    else:
        (folder / _ROWS_FILE).write_text(to_json(rows))
    inputs.validation.save(folder / _VALIDATION_FILE)
    inputs.items.save(folder / _ITEMS_FILE)
    (folder / SPEC_FILE).write_text(to_json(inputs.spec))
    (folder / CONFIG_FILE).write_text(to_json(config))
    return folder


def streamed_rows(folder: Path) -> RowsReference | None:
    """Return where the rows of a prepared folder are, None if the folder holds them itself."""
    path = folder / _ROWS_FILE
    return from_json(RowsReference, path.read_text()) if path.exists() else None


def fit(
    folder: Path,
    *,
    report: Report,
    prepare: Prepare,
    launch: Launch = PLAIN_LAUNCH,
    rows: RowChunks | None = None,
) -> TrainResult:
    """Train the ranker of a prepared folder, continuing from its newest checkpoint.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
        launch: What else the runner wants.
        rows: The rows that `streamed_rows` names, if it names any.

    Raises:
        ValueError: If the folder's rows are to be streamed and none are given, or given and not;
            if it does not hold what was fitted on them.
    """
    if (streamed_rows(folder) is None) != (rows is None):
        raise ValueError(
            f"training folder {folder} {'holds' if rows is not None else 'does not hold'} its "
            "rows: give those that streamed_rows names, if it names any"
        )
    config = from_json(RankerConfig, (folder / CONFIG_FILE).read_text())
    spec = from_json(FeatureSpec, (folder / SPEC_FILE).read_text())
    items = ItemTable.load(folder / _ITEMS_FILE)
    validation = SequenceData.load(folder / _VALIDATION_FILE)
    if not (folder / _FITTED_FILE).exists():
        raise ValueError(
            f"training folder {folder} lacks {_FITTED_FILE}, which an earlier version did not "
            "write; remove the folder, and prepare it again"
        )
    fitted = Fitted.load(folder / _FITTED_FILE)
    model = build_model(config, spec=spec, items=items, fitted=fitted)
    if rows is not None:
        batches = streamed_batches(model, rows, config, span=fitted.span)
    else:
        batches = memory_batches(model, SequenceData.load(folder / _TRAIN_FILE), config)
    job = batches_job(model, batches, validation, config=config, folder=folder / CHECKPOINTS_FOLDER)
    job = launch.change(in_steps(job, batches, step_batches=launch.step_batches))
    training = launch.training(config.training, steps_per_epoch=job.steps_per_epoch)
    return train(model, job, training, report=report, prepare=prepare)
