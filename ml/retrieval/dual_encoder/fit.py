"""Train a dual encoder from a folder of prepared data: what each replica runs."""

import json
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ml.batches import Shard
from ml.configuration import from_json, to_json
from ml.features import FloatArray
from ml.retrieval.dual_encoder.batches import ItemPrompts, MemberExamples, RetrievalBatches
from ml.retrieval.dual_encoder.loss import contrastive_loss
from ml.retrieval.dual_encoder.model import DualEncoder, DualEncoderConfig, build
from ml.retrieval.dual_encoder.model import save as save_encoder
from ml.retrieval.dual_encoder.recipes import RetrieverRecipe
from ml.tokenizers.prompt_tokenizer import TokenRows, load_tokenizer, save_tokenizer
from ml.training.checkpoint import load_model
from ml.training.collectives import Collectives, current_replicas
from ml.training.loop import Prepare, Report, TrainJob, TrainResult, train

RECIPE_FILE = "retriever_recipe.json"
TOKENIZER_FOLDER = "tokenizer"
_VECTORS_FILE = "token_vectors.safetensors"
_MAX_VALIDATION_BATCHES = 40


def prepare_folder(
    members: Mapping[str, MemberExamples],
    items: ItemPrompts,
    *,
    recipe: RetrieverRecipe,
    tokenizer: tuple[PreTrainedTokenizerFast, FloatArray],
    folder: Path,
) -> Path:
    """Write everything that a training needs into a new folder.

    Args:
        members: Examples of train and validation.
        items: Item prompts by day.
        recipe: The whole recipe.
        tokenizer: The tokenizer and the first token vectors [V, W].
        folder: An empty or absent folder.

    Raises:
        FileExistsError: If the folder holds an earlier training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"training folder {folder} is not empty; choose another")
    for split in ("train", "validation"):
        _save_members(members[split], folder / f"{split}.npz")
    np.savez(
        folder / "items.npz",
        item=items.item_M,
        day=items.day_M,
        ids=items.tokens.ids_NS,
        lengths=items.tokens.lengths_N,
    )
    save_tokenizer(tokenizer[0], folder / TOKENIZER_FOLDER)
    save_file({"vectors": tokenizer[1].astype(np.float32)}, folder / _VECTORS_FILE)
    (folder / RECIPE_FILE).write_text(to_json(recipe))
    return folder


def fit(folder: Path, *, report: Report, prepare: Prepare) -> TrainResult:
    """Train the dual encoder of a prepared folder, continuing from its newest checkpoint.

    Args:
        folder: What `prepare_folder` wrote; checkpoints go into its `checkpoints`.
        report: Takes the metrics and, on replica 0, the checkpoint of each epoch.
        prepare: Moves the model to its device.
    """
    recipe = from_json(RetrieverRecipe, (folder / RECIPE_FILE).read_text())
    replicas = current_replicas()
    shard = Shard(rank=replicas.rank, size=replicas.size)
    items = _load_items(folder / "items.npz")
    train_batches, validation = (
        RetrievalBatches(_load_members(folder / f"{split}.npz"), items, config=recipe.batches)
        for split in ("train", "validation")
    )

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        queries, candidates = model(batch)
        weight = torch.tensor(float(len(batch["target"])))
        return contrastive_loss(queries, candidates, batch, config=recipe.loss) * weight, weight

    job = TrainJob(
        epoch=lambda number: train_batches.epoch(number, shard=shard),
        steps_per_epoch=train_batches.num_batches(size=replicas.size),
        loss=loss,
        validate=lambda model: _validate(model, validation, loss=loss, replicas=replicas),
        folder=folder / "checkpoints",
        collectives=replicas,
        texts={RECIPE_FILE: to_json(recipe)},
    )
    model = _new_model(folder, recipe)
    return train(model, job, recipe.training, report=report, prepare=prepare)


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
    recipe = from_json(RetrieverRecipe, (checkpoint / RECIPE_FILE).read_text())
    model = _new_model(data, recipe)
    load_model(checkpoint, model)
    save_encoder(model, target)
    shutil.copytree(data / TOKENIZER_FOLDER, target / TOKENIZER_FOLDER)
    shutil.copyfile(checkpoint / RECIPE_FILE, target / RECIPE_FILE)
    return target


def _validate(
    model: nn.Module, batches: RetrievalBatches, *, loss, replicas: Collectives
) -> dict[str, float]:
    shard = Shard(rank=replicas.rank, size=replicas.size)
    totals = torch.zeros(2, dtype=torch.float64)
    for batch in islice(batches.epoch(0, shard=shard), _MAX_VALIDATION_BATCHES):
        summed, weight = loss(model, batch)
        totals += torch.stack([summed.double(), weight.double()])
    total, weight = replicas.sum(totals).tolist()
    return {"validation_loss": total / max(weight, 1.0)}


def _new_model(folder: Path, recipe: RetrieverRecipe) -> DualEncoder:
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    sizes = recipe.model
    config = DualEncoderConfig(
        vocabulary_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        intermediate_size=sizes.intermediate_size,
        max_member_tokens=sizes.max_member_tokens,
        max_item_tokens=sizes.max_item_tokens,
        checkpoint=sizes.checkpoint,
    )
    vectors = torch.from_numpy(load_file(folder / _VECTORS_FILE)["vectors"])
    return build(config, seed=recipe.training.seed, token_vectors_VW=vectors)


def _save_members(members: MemberExamples, path: Path) -> None:
    lists = {
        "negatives": json.dumps([list(map(int, row)) for row in members.negatives]),
        "history": json.dumps([list(map(int, row)) for row in members.history]),
        "positives": json.dumps([list(map(int, row)) for row in members.positives]),
    }
    path.with_suffix(".json").write_text(json.dumps({**lists, "post_id": members.post_id}))
    np.savez(
        path,
        ids=members.tokens.ids_NS,
        lengths=members.tokens.lengths_N,
        item=members.item_N,
        day=members.day_N,
    )


def _load_members(path: Path) -> MemberExamples:
    lists = json.loads(path.with_suffix(".json").read_text())
    with np.load(path, allow_pickle=False) as arrays:
        return MemberExamples(
            tokens=TokenRows(ids_NS=arrays["ids"], lengths_N=arrays["lengths"]),
            item_N=arrays["item"],
            day_N=arrays["day"],
            negatives=json.loads(lists["negatives"]),
            history=json.loads(lists["history"]),
            positives=json.loads(lists["positives"]),
            post_id=int(lists["post_id"]),
        )


def _load_items(path: Path) -> ItemPrompts:
    with np.load(path, allow_pickle=False) as arrays:
        return ItemPrompts(
            item_M=arrays["item"],
            day_M=arrays["day"],
            tokens=TokenRows(ids_NS=arrays["ids"], lengths_N=arrays["lengths"]),
        )
