"""Put data, model and loop together: what trains a sequence ranker, for any runner."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ml.batches import Batch, BatchConfig, SequenceBatches
from ml.configuration import from_json, to_json
from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.event_features import EventFeatures
from ml.ranking.sequence_ranker.event_weights import TimeSpan, event_weights
from ml.ranking.sequence_ranker.fitted import Fitted, fit_train_split
from ml.ranking.sequence_ranker.inputs import STATIC_BUFFER, TEXT_BUFFER
from ml.ranking.sequence_ranker.loss import event_losses, multi_task_loss, target_weights
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.score import validation_metrics
from ml.row_chunks import RowChunks
from ml.streaming import StreamedBatches, TrainingBatches
from ml.training.collectives import current_replicas, validators
from ml.training.job import TrainJob
from ml.training.steps import in_steps
from ml.training.tables.files import whole_weights

CONFIG_FILE = "ranker_config.json"
SPEC_FILE = "feature_spec.json"
SCORING = BatchConfig()


def build_model(
    config: RankerConfig,
    *,
    spec: FeatureSpec,
    items: ItemTable,
    train: SequenceData | None = None,
    fitted: Fitted | None = None,
) -> SequenceRanker:
    """Return a new model whose weights depend on the configuration's seed only.

    Args:
        config: The whole recipe.
        spec: Vocabulary sizes.
        items: Facts of the items.
        train: Train split, from which the average users and the origin of time are kept with
            the weights; None if a checkpoint is to be loaded, which has it.
        fitted: What was fitted on the train split, instead of that.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = SequenceRanker(config.model, spec=spec, items=items)
    if train is not None:
        fitted = fit_train_split(train, items=items, spec=spec, config=config.model)
    if fitted is not None:
        fitted.keep_in(model)
    return model


def batches_for(
    model: SequenceRanker,
    data: SequenceData,
    *,
    config: BatchConfig = SCORING,
    weights: FloatArray | None = None,
) -> SequenceBatches:
    """Return the batches of one split with what the model wants of each event.

    Args:
        model: A model that knows what users on average do.
        data: Sequences.
        config: Batch size.
        weights: Weight of each event's loss, [E]; all 1 by default.
    """
    return EventFeatures.of(model).batches(data, config=config, weights=weights)


def streamed_batches(
    model: SequenceRanker, rows: RowChunks, config: RankerConfig, *, span: TimeSpan | None
) -> StreamedBatches:
    """Return the batches of a train split that is read while training.

    Args:
        model: A model that knows what was fitted on the train split.
        rows: The train split.
        config: The whole recipe.
        span: Times of the oldest and the newest dated event of the train split.

    Raises:
        ValueError: If the recipe does not stream its rows, or none has a target.
    """
    if config.stream is None:
        raise ValueError("the recipe has no stream; set it, or train on the rows in memory")
    features = EventFeatures.of(model)

    def prepare(data: SequenceData) -> SequenceBatches:
        weights = event_weights(data, config.weights, span=span)
        return features.batches(data, config=config.batches, weights=weights)

    return StreamedBatches(
        rows,
        prepare=prepare,
        config=config.batches,
        stream=config.stream,
        epochs=config.training.epochs,
    )


def ranker_job(
    ranker: SequenceRanker, inputs: RankerInputs, config: RankerConfig, *, folder: Path
) -> TrainJob:
    """Return the training job of this replica on rows in memory.

    Args:
        ranker: The model that is to be trained, with its fitted base rates.
        inputs: Data and vocabulary.
        config: The whole recipe.
        folder: Where checkpoints go.

    Raises:
        ValueError: If the recipe streams its rows.
    """
    batches = memory_batches(ranker, inputs.train, config)
    return batches_job(ranker, batches, inputs.validation, config=config, folder=folder)


def memory_batches(
    ranker: SequenceRanker, train: SequenceData, config: RankerConfig
) -> SequenceBatches:
    """Return the training batches of rows in memory.

    Raises:
        ValueError: If the recipe streams its rows.
    """
    if config.stream is not None:
        raise ValueError(
            "the recipe streams its rows; train it from a folder that says where they are "
            "(prepare_folder with rows), or set stream to None"
        )
    weights = event_weights(train, config.weights)
    return batches_for(ranker, train, config=config.batches, weights=weights)


def batches_job(
    ranker: SequenceRanker,
    batches: TrainingBatches,
    validation: SequenceData,
    *,
    config: RankerConfig,
    folder: Path,
) -> TrainJob:
    """Return the training job of this replica on any batches.

    Args:
        ranker: The model that is to be trained, with its fitted base rates.
        batches: Of the train split.
        validation: The validation split.
        config: The whole recipe.
        folder: Where checkpoints go.
    """
    replicas, spec = current_replicas(), ranker.spec
    is_split = config.model.item_table == "sharded"
    judges = validators(replicas, sharding="full" if is_split else config.training.sharding)
    scored = batches_for(ranker, validation, config=config.batches)

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        smoothing = cast("SequenceRanker", model).label_smoothing
        return multi_task_loss(model(batch), batch, smoothing=smoothing)

    def probe(model: nn.Module, sync: int) -> Tensor:
        return sequence_losses(model, batches.probe(sync))

    def validate(model: nn.Module) -> dict[str, float]:
        return validation_metrics(model, scored, spec=spec, collectives=judges)

    job = TrainJob(
        epoch=batches.epoch,  # pyright: ignore[reportArgumentType] - in_steps says of which shard
        steps_per_epoch=batches.num_batches(),
        loss=loss,
        validate=validate,
        folder=folder,
        probe=probe,
        collectives=replicas,
        texts={CONFIG_FILE: to_json(config), SPEC_FILE: to_json(spec)},
    )
    return in_steps(job, batches)


def sequence_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the weighted mean target loss of each sequence, [B]."""
    batch = batch.to(next(model.parameters()).device)
    losses = event_losses(model(batch), batch)
    return losses.sum(dim=1) / target_weights(batch).sum(dim=1).clamp(min=1e-6)


def load_ranker(folder: Path) -> SequenceRanker:
    """Return the model of a checkpoint; its item table comes with the weights.

    A model that was trained with a sharded table comes with a plain one, so one process must have
    the memory for all of it.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    config = from_json(RankerConfig, (folder / CONFIG_FILE).read_text())
    if config.model.item_table == "sharded":
        config = replace(config, model=replace(config.model, item_table="sparse"))
    spec = from_json(FeatureSpec, (folder / SPEC_FILE).read_text())
    weights = whole_weights(folder)
    static = weights[STATIC_BUFFER].numpy()
    text = weights.get(TEXT_BUFFER, torch.zeros(len(static), 0)).numpy()
    num_tags = static.shape[1] - len(spec.code_sizes) - 1
    items = ItemTable(
        tags=static[:, :num_tags],
        codes=static[:, num_tags:-1],
        author=static[:, -1],
        embedding=text,
        tag_names=np.array([], str),
    )
    model = build_model(config, spec=spec, items=items)
    model.load_state_dict(weights, strict=True)
    return model.eval()
