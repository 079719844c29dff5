"""Train a dual encoder from a folder of prepared data: what each replica runs."""

from pathlib import Path

import numpy as np

from ml.configuration import from_json, to_json
from ml.retrieval.dual_encoder.batches import ItemPrompts
from ml.retrieval.dual_encoder.inputs import RetrieverInputs, load_members, save_members
from ml.retrieval.dual_encoder.recipes import RetrieverConfig
from ml.retrieval.dual_encoder.training import RECIPE_FILE, build_model, retriever_job
from ml.tokenizers.prompt_tokenizer import TokenRows, load_tokenizer, save_tokenizer
from ml.training.checkpoint import CHECKPOINTS_FOLDER
from ml.training.collectives import current_replicas
from ml.training.job import PLAIN_LAUNCH, Launch, Prepare, Report, TrainResult
from ml.training.loop import train

_ITEMS, _VECTORS, _TOKENIZER = "items.npz", "token_vectors.npy", "tokenizer"


def prepare_folder(inputs: RetrieverInputs, config: RetrieverConfig, *, folder: Path) -> Path:
    """Write everything that a training needs into a new folder.

    Args:
        inputs: Tokenised data and vocabulary.
        config: The whole recipe.
        folder: An empty or absent folder.

    Raises:
        FileExistsError: If the folder holds an earlier training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"training folder {folder} is not empty; choose another")
    save_members(inputs.train, folder / "train.npz")
    save_members(inputs.validation, folder / "validation.npz")
    items = inputs.items
    np.savez(
        folder / _ITEMS,
        item=items.item,
        day=items.day,
        ids=items.tokens.ids,
        lengths=items.tokens.lengths,
        catalogue_day=inputs.catalogue_day,
    )
    if inputs.token_vectors is not None:
        np.save(folder / _VECTORS, inputs.token_vectors, allow_pickle=False)
    save_tokenizer(inputs.tokenizer, folder / _TOKENIZER)
    (folder / RECIPE_FILE).write_text(to_json(config))
    return folder


def load_inputs(folder: Path) -> RetrieverInputs:
    """Read what `prepare_folder` wrote."""
    with np.load(folder / _ITEMS, allow_pickle=False) as file:
        items = ItemPrompts(
            item=file["item"],
            day=file["day"],
            tokens=TokenRows(ids=file["ids"], lengths=file["lengths"]),
        )
        catalogue_day = int(file["catalogue_day"])
    vectors = folder / _VECTORS
    return RetrieverInputs(
        train=load_members(folder / "train.npz"),
        validation=load_members(folder / "validation.npz"),
        items=items,
        catalogue_day=catalogue_day,
        tokenizer=load_tokenizer(folder / _TOKENIZER),
        token_vectors=np.load(vectors, allow_pickle=False) if vectors.is_file() else None,
    )


def fit(
    folder: Path, *, report: Report, prepare: Prepare, launch: Launch = PLAIN_LAUNCH
) -> TrainResult:
    """Train the dual encoder of a prepared folder, continuing from its newest checkpoint.

    A checkpoint holds weights, configuration and tokenizer: `model.load` and `load_tokenizer`
    read it as it is.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
        launch: What else the runner wants.

    Raises:
        ValueError: If steps shall have another number of batches than there are replicas.
    """
    replicas = current_replicas().size
    if launch.step_batches not in (None, replicas):
        raise ValueError(
            f"a step of the retriever has one batch of each of its {replicas} workers, whose "
            f"candidates are pooled, and cannot have {launch.step_batches}; train it on a fixed "
            "number of workers"
        )
    config = from_json(RetrieverConfig, (folder / RECIPE_FILE).read_text())
    inputs = load_inputs(folder)
    model = build_model(inputs, config)
    job = retriever_job(model, inputs, config, folder=folder / CHECKPOINTS_FOLDER)
    return train(model, launch.change(job), config.training, report=report, prepare=prepare)
