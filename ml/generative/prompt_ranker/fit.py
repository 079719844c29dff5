"""Train a prompt ranker from a folder of prepared data: what each replica runs."""

from pathlib import Path

import numpy as np

from ml.configuration import from_json, to_json
from ml.generative.prompt_ranker.inputs import PromptRankerInputs, load_examples, save_examples
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.generative.prompt_ranker.training import RECIPE_FILE, build_model, prompt_ranker_job
from ml.tokenizers.prompt_tokenizer import load_tokenizer, save_tokenizer
from ml.training.checkpoint import CHECKPOINTS_FOLDER
from ml.training.job import PLAIN_LAUNCH, Launch, Prepare, Report, TrainResult
from ml.training.loop import train

_VECTORS, _TOKENIZER = "token_vectors.npy", "tokenizer"


def prepare_folder(inputs: PromptRankerInputs, config: PromptRankerRecipe, *, folder: Path) -> Path:
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
    save_examples(inputs.train, folder / "train.npz")
    save_examples(inputs.validation, folder / "validation.npz")
    if inputs.token_vectors is not None:
        np.save(folder / _VECTORS, inputs.token_vectors, allow_pickle=False)
    save_tokenizer(inputs.tokenizer, folder / _TOKENIZER)
    (folder / RECIPE_FILE).write_text(to_json(config))
    return folder


def load_inputs(folder: Path) -> PromptRankerInputs:
    """Read what `prepare_folder` wrote."""
    vectors = folder / _VECTORS
    return PromptRankerInputs(
        train=load_examples(folder / "train.npz"),
        validation=load_examples(folder / "validation.npz"),
        tokenizer=load_tokenizer(folder / _TOKENIZER),
        token_vectors=np.load(vectors, allow_pickle=False) if vectors.is_file() else None,
    )


def fit(
    folder: Path, *, report: Report, prepare: Prepare, launch: Launch = PLAIN_LAUNCH
) -> TrainResult:
    """Train the prompt ranker of a prepared folder, continuing from its newest checkpoint.

    A checkpoint holds weights, configuration and tokenizer: `model.load` and `load_tokenizer`
    read it as it is.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
        launch: What else the runner wants.
    """
    config = from_json(PromptRankerRecipe, (folder / RECIPE_FILE).read_text())
    inputs = load_inputs(folder)
    model = build_model(inputs, config)
    job = prompt_ranker_job(
        model,
        inputs,
        config,
        folder=folder / CHECKPOINTS_FOLDER,
        step_batches=launch.step_batches,
    )
    training = launch.training(config.training, steps_per_epoch=job.steps_per_epoch)
    return train(model, launch.change(job), training, report=report, prepare=prepare)
