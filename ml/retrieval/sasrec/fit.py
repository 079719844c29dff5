"""Train SASRec with the training loop, and rank the next item among all items."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.configuration import to_json
from ml.layers.product import product
from ml.metrics import ndcg_at, recall_at
from ml.retrieval.evaluation import RetrievalQueries, target_ranks
from ml.retrieval.leave_one_out import LeaveOneOut, NextItems
from ml.retrieval.sasrec.batches import (
    Ids,
    PackedRows,
    pack,
    shuffled_batches,
    training_windows,
)
from ml.retrieval.sasrec.loss import full_softmax_loss
from ml.retrieval.sasrec.model import SasRec
from ml.retrieval.sasrec.recipes import MONITOR, SasRecRecipe
from ml.training.checkpoint import load_model
from ml.training.job import Report, TrainJob, TrainResult
from ml.training.loop import train

# Shapes: Q queries, V items, D width, N places.
_ROWS_AT_ONCE = 2048
_SCORED_AT_ONCE = 128  # so that their scores stay in the cache


def batch_loss(model: nn.Module, batch: PackedRows) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy over all items of a batch's targets, and their number.

    Raises:
        ValueError: If the batch has no targets.
    """
    assert isinstance(model, SasRec)
    if batch.targets is None:
        raise ValueError("the batch has no targets; make it with training_rows")
    states_BLD = model(batch.items, batch.places, batch.segments)
    states_ND = states_BLD.flatten(0, 1)[batch.index]
    loss = full_softmax_loss(states_ND, model.items.weight, batch.targets)
    return loss, torch.tensor(float(len(batch.targets)), device=loss.device)


@torch.no_grad()
def last_states(model: SasRec, histories: Sequence[Ids]) -> Tensor:
    """Return the state after each history's last item, [Q, D], of its last `length` items."""
    length, was_training = model.config.length, model.training
    device = model.items.weight.device
    model.eval()
    parts = []
    for start in range(0, len(histories), _ROWS_AT_ONCE):
        recent = [history[-length:] for history in histories[start : start + _ROWS_AT_ONCE]]
        rows = pack(recent, length=length).to(device)
        states_BLD = model(rows.items, rows.places, rows.segments)
        parts.append(states_BLD.flatten(0, 1)[rows.last])
    model.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def next_item_ranks(
    model: SasRec, queries: NextItems, *, hide_seen: bool = False
) -> NDArray[np.int64]:
    """Rank the item that came next among all items, from 1; ties count half of their number.

    Args:
        model: The model.
        queries: Histories and the item after each.
        hide_seen: Whether a history's items cannot be recommended again.
    """
    states_QD, items_VD = last_states(model, queries.histories), model.items.weight
    return target_ranks(
        lambda chunk: product(states_QD[chunk], items_VD).cpu(),
        RetrievalQueries(
            user=np.arange(len(queries.targets)),
            target=queries.targets,
            hidden=[history.tolist() for history in queries.histories] if hide_seen else None,
        ),
        np.arange(len(items_VD)),
        chunk_size=_SCORED_AT_ONCE,
    )


def next_item_metrics(ranks: NDArray[np.int64], *, prefix: str) -> dict[str, float]:
    """Return recall and NDCG at 5 and 10, by name."""
    metrics = {}
    for k in (5, 10):
        metrics[f"{prefix}_recall_{k}"] = recall_at(ranks, k=k)
        metrics[f"{prefix}_ndcg_{k}"] = ndcg_at(ranks, k=k)
    return metrics


def fit(
    split: LeaveOneOut,
    *,
    recipe: SasRecRecipe,
    num_items: int,
    folder: Path,
    report: Report = lambda metrics, folder: None,
) -> tuple[SasRec, TrainResult]:
    """Train on every place of the sequences; return the model of the best validation NDCG@10.

    Args:
        split: Sequences to learn from, and the validation items that choose the epoch; its test
            items are not looked at.
        recipe: Sizes and training; `recipe.training.seed` draws weights, order and dropout.
        num_items: Size of the catalogue.
        folder: Where checkpoints go.
        report: Called after each epoch.

    Raises:
        ValueError: If no sequence has two items, or an id is not below `num_items`.
    """
    job = training_job(split, recipe=recipe, num_items=num_items, folder=folder)
    model = SasRec(recipe.model, num_items=num_items, seed=recipe.training.seed)
    result = train(model, job, recipe.training, report=report, prepare=lambda module: module)
    load_model(result.checkpoint, model)
    return model.eval(), result


def training_job(
    split: LeaveOneOut, *, recipe: SasRecRecipe, num_items: int, folder: Path
) -> TrainJob:
    """Return what the training loop needs, see `fit`."""
    length, size, seed = recipe.model.length, recipe.batch_sequences, recipe.training.seed
    windows = training_windows(split.train, length=length)
    if not windows:
        raise ValueError("no sequence has two items, so there is nothing to predict")
    largest = max(int(window.max()) for window in windows)
    if largest >= num_items:
        raise ValueError(f"item id {largest} is not below num_items {num_items}; number them anew")

    def epoch(number: int) -> Iterator[PackedRows]:
        return shuffled_batches(windows, size=size, length=length, seed=(seed, number))

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, SasRec)
        metrics = next_item_metrics(next_item_ranks(model, split.validation), prefix="validation")
        return {**metrics, MONITOR: -metrics["validation_ndcg_10"]}

    return TrainJob(
        epoch=epoch,
        steps_per_epoch=-(-len(windows) // size),
        loss=batch_loss,
        validate=validate,
        folder=folder,
        texts={"sasrec.json": to_json(recipe)},
    )
