"""Put data, model and loop together: what trains a sequence ranker, for any runner."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.batches import Batch, BatchConfig, EventExtras, SequenceBatches, Shard
from ml.configuration import from_json, to_json
from ml.features import NO_TIME, FeatureSpec, FloatArray, SequenceData
from ml.item_table import ItemTable
from ml.layers.time_features import set_time_origin
from ml.ranking.crosses import cross_keys, cross_numbers, cross_vocabulary
from ml.ranking.expectation import fit_expectation, plain_expectation
from ml.ranking.inputs import RankerInputs
from ml.ranking.numeric_features import numeric_features
from ml.ranking.sequence_ranker.event_weights import event_weights
from ml.ranking.sequence_ranker.inputs import STATIC_BUFFER, TEXT_BUFFER
from ml.ranking.sequence_ranker.loss import event_losses, multi_task_loss, target_weights
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.score import validation_metrics
from ml.training.checkpoint import MODEL_FILE, load_model
from ml.training.collectives import current_replicas
from ml.training.job import TrainJob

CONFIG_FILE = "ranker_config.json"
SPEC_FILE = "feature_spec.json"
SCORING = BatchConfig()


def build_model(
    config: RankerConfig,
    *,
    spec: FeatureSpec,
    items: ItemTable,
    train: SequenceData | None = None,
) -> SequenceRanker:
    """Return a new model whose weights depend on the configuration's seed only.

    Args:
        config: The whole recipe.
        spec: Vocabulary sizes.
        items: Facts of the items.
        train: Train split, from which the average users and the origin of time are kept with
            the weights; None if a checkpoint is to be loaded, which has it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = SequenceRanker(config.model, spec=spec, items=items)
    if train is not None:
        fitted = config.model.late_numbers
        model.start_from(
            fit_expectation(train, items=items, spec=spec)
            if fitted
            else plain_expectation(train, spec=spec)
        )
        if size := config.model.wide_crosses:
            model.set_cross_keys(cross_vocabulary(train, items=items, spec=spec, size=size))
        dated = train.time[train.time != NO_TIME]
        if len(dated):
            set_time_origin(model, int(dated.min()))
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
    numbers = pairs = None
    spec, items = model.spec, model.item_table()
    if model.config.late_numbers:
        numbers = numeric_features(data, items=items, spec=spec, expectation=model.expectation)
    if model.config.wide_crosses:
        keys = cross_keys(data, items=items, spec=spec)
        pairs = cross_numbers(keys, model.cross_keys.cpu().numpy())
    extras = EventExtras(weights=weights, numbers=numbers, crosses=pairs)
    return SequenceBatches(data, spec=spec, config=config, extras=extras)


def ranker_job(
    ranker: SequenceRanker, inputs: RankerInputs, config: RankerConfig, *, folder: Path
) -> TrainJob:
    """Return the training job of this replica.

    Args:
        ranker: The model that is to be trained, with its fitted base rates.
        inputs: Data and vocabulary.
        config: The whole recipe.
        folder: Where checkpoints go.
    """
    replicas = current_replicas()
    shard = Shard(rank=replicas.rank, size=replicas.size)
    weights = event_weights(inputs.train, config.weights)
    batches = batches_for(ranker, inputs.train, config=config.batches, weights=weights)
    validation = batches_for(ranker, inputs.validation, config=config.batches)

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        smoothing = cast("SequenceRanker", model).label_smoothing
        return multi_task_loss(model(batch), batch, smoothing=smoothing)

    def probe(model: nn.Module, sync: int) -> Tensor:
        return sequence_losses(model, batches.probe(sync))

    def validate(model: nn.Module) -> dict[str, float]:
        return validation_metrics(model, validation, spec=inputs.spec, collectives=replicas)

    return TrainJob(
        epoch=lambda number: batches.epoch(number, shard=shard),
        steps_per_epoch=batches.num_batches(size=replicas.size),
        loss=loss,
        validate=validate,
        folder=folder,
        probe=probe,
        collectives=replicas,
        texts={CONFIG_FILE: to_json(config), SPEC_FILE: to_json(inputs.spec)},
    )


def sequence_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the weighted mean target loss of each sequence, [B]."""
    batch = batch.to(next(model.parameters()).device)
    losses = event_losses(model(batch), batch)
    return losses.sum(dim=1) / target_weights(batch).sum(dim=1).clamp(min=1e-6)


def load_ranker(folder: Path) -> SequenceRanker:
    """Return the model of a checkpoint; its item table comes with the weights.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    config = from_json(RankerConfig, (folder / CONFIG_FILE).read_text())
    spec = from_json(FeatureSpec, (folder / SPEC_FILE).read_text())
    static = load_file(folder / MODEL_FILE)[STATIC_BUFFER].numpy()
    text = load_file(folder / MODEL_FILE).get(TEXT_BUFFER, torch.zeros(len(static), 0)).numpy()
    num_tags = static.shape[1] - len(spec.code_sizes) - 1
    items = ItemTable(
        tags=static[:, :num_tags],
        codes=static[:, num_tags:-1],
        author=static[:, -1],
        embedding=text,
        tag_names=np.array([], str),
    )
    model = build_model(config, spec=spec, items=items)
    load_model(folder, model)
    return model.eval()
