"""Train a prompt ranker from a folder of prepared data: what each replica runs."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ml.batches import Shard
from ml.configuration import from_json, to_json
from ml.features import FloatArray
from ml.generative.prompt_ranker.examples import PromptBatches, PromptExamples, token_batch
from ml.generative.prompt_ranker.loss import ranker_loss
from ml.generative.prompt_ranker.model import (
    PromptRanker,
    PromptRankerConfig,
    build,
    yes_probability,
)
from ml.generative.prompt_ranker.model import save as save_ranker
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.metrics import EntropyTotals
from ml.tokenizers.prompt_tokenizer import TokenRows, load_tokenizer, save_tokenizer, token_id
from ml.tokenizers.special_tokens import NO, YES
from ml.training.checkpoint import load_model
from ml.training.collectives import Collectives, current_replicas
from ml.training.loop import Prepare, Report, TrainJob, TrainResult, train

RECIPE_FILE = "prompt_ranker_recipe.json"
TOKENIZER_FOLDER = "tokenizer"
_VECTORS_FILE = "token_vectors.safetensors"
_TOKENS_PER_BATCH = 16_384


def prepare_folder(
    examples: Mapping[str, PromptExamples],
    recipe: PromptRankerRecipe,
    *,
    tokenizer: PreTrainedTokenizerFast,
    token_vectors_VW: FloatArray,
    folder: Path,
) -> Path:
    """Write everything that a training needs into a new folder.

    Args:
        examples: Those of train and validation.
        recipe: The whole recipe.
        tokenizer: The one that the examples were tokenised with.
        token_vectors_VW: First token vectors.
        folder: An empty or absent folder.

    Raises:
        FileExistsError: If the folder holds an earlier training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"training folder {folder} is not empty; choose another")
    for split in ("train", "validation"):
        examples[split].save(folder / f"{split}.npz")
    save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)
    save_file({"vectors": token_vectors_VW.astype(np.float32)}, folder / _VECTORS_FILE)
    (folder / RECIPE_FILE).write_text(to_json(recipe))
    return folder


def fit(folder: Path, *, report: Report, prepare: Prepare) -> TrainResult:
    """Train the prompt ranker of a prepared folder, continuing from its newest checkpoint.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
    """
    recipe = from_json(PromptRankerRecipe, (folder / RECIPE_FILE).read_text())
    replicas = current_replicas()
    shard = Shard(rank=replicas.rank, size=replicas.size)
    training = PromptExamples.load(folder / "train.npz")
    validation = PromptExamples.load(folder / "validation.npz")
    batches = PromptBatches(training, batch_size=recipe.batch_size, seed=recipe.training.seed)

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        weight = torch.tensor(float(len(batch["labels"])))
        return ranker_loss(_ranker(model), batch, config=recipe.loss) * weight, weight

    def probe(model: nn.Module, sync: int) -> Tensor:
        rows = np.random.default_rng(sync).permutation(len(validation.labels))[:64]
        logits = _ranker(model)(token_batch(validation.tokens, rows))
        answers = torch.from_numpy(1 - validation.labels[rows].astype(np.int64))
        return nn.functional.cross_entropy(logits, answers, reduction="none")

    job = TrainJob(
        epoch=lambda number: batches.epoch(number, shard=shard),
        steps_per_epoch=batches.num_batches(size=replicas.size),
        loss=loss,
        validate=lambda model: _validate(_ranker(model), validation, replicas=replicas),
        folder=folder / "checkpoints",
        probe=probe,
        collectives=replicas,
        texts={RECIPE_FILE: to_json(recipe)},
    )
    model = _new_model(folder, recipe)
    return train(model, job, recipe.training, report=report, prepare=prepare)


def score(model: PromptRanker, tokens: TokenRows) -> FloatArray:
    """Return P(yes) of each row in order; similar lengths share a batch, so padding is rare."""
    order = np.argsort(tokens.lengths_N, kind="stable")
    probabilities = np.zeros(len(order), np.float32)
    model.eval()
    start = 0
    with torch.inference_mode():
        while start < len(order):
            rows = _next_rows(order, tokens.lengths_N, start)
            logits = model(token_batch(tokens, rows))
            probabilities[rows] = yes_probability(logits).float().numpy()
            start += len(rows)
    return probabilities


def export_model(checkpoint: Path, target: Path, *, data: Path) -> Path:
    """Write what serving needs into a folder: weights, configurations and tokenizer.

    Args:
        checkpoint: The checkpoint to export.
        target: Folder to write; replaced if it exists.
        data: The prepared folder that it was trained from.
    """
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    recipe = from_json(PromptRankerRecipe, (checkpoint / RECIPE_FILE).read_text())
    model = _new_model(data, recipe)
    load_model(checkpoint, model)
    save_ranker(model, target)
    shutil.copytree(data / TOKENIZER_FOLDER, target / TOKENIZER_FOLDER)
    shutil.copyfile(checkpoint / RECIPE_FILE, target / RECIPE_FILE)
    return target


def _new_model(folder: Path, recipe: PromptRankerRecipe) -> PromptRanker:
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    sizes = recipe.decoder
    config = PromptRankerConfig(
        vocabulary_size=len(tokenizer),
        yes_id=token_id(tokenizer, YES),
        no_id=token_id(tokenizer, NO),
        architecture=sizes.architecture,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_experts=sizes.num_experts,
        experts_per_token=sizes.experts_per_token,
        expert_size=sizes.expert_size,
        max_tokens=recipe.budget.member_tokens + recipe.budget.item_tokens + 2,
    )
    vectors = torch.from_numpy(load_file(folder / _VECTORS_FILE)["vectors"])
    return build(config, seed=recipe.training.seed, token_vectors_VW=vectors)


def _validate(
    model: PromptRanker, examples: PromptExamples, *, replicas: Collectives
) -> dict[str, float]:
    rows = np.arange(replicas.rank, len(examples.labels), replicas.size)
    tokens = examples.tokens
    own = TokenRows(ids_NS=tokens.ids_NS[rows], lengths_N=tokens.lengths_N[rows])
    totals = EntropyTotals.of(examples.labels[rows].astype(np.int64), score(model, own))
    sums = torch.tensor(
        [totals.weight, totals.positives, totals.loss, totals.predicted], dtype=torch.float64
    )
    weight, positives, loss, predicted = replicas.sum(sums).tolist()
    whole = EntropyTotals(weight=weight, positives=positives, loss=loss, predicted=predicted)
    return {"validation_ne": whole.normalized_entropy, "validation_loss": whole.log_loss}


def _next_rows(order: np.ndarray, lengths: np.ndarray, start: int) -> np.ndarray:
    """Return the next rows of rising length that fit into one batch together."""
    widths = lengths[order[start : start + 1024]]
    fits = (np.arange(len(widths)) + 1) * widths <= _TOKENS_PER_BATCH
    return order[start : start + max(1, int(fits.sum()))]


def _ranker(model: nn.Module) -> PromptRanker:
    assert isinstance(model, PromptRanker)
    return model
