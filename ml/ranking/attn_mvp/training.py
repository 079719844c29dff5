"""Put data, model and loop together: what trains an AttnMVP ranker, for any runner."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.batches import Batch, SequenceBatches, Shard
from ml.configuration import from_json, to_json
from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.attn_mvp.loss import event_losses, multi_task_loss
from ml.ranking.attn_mvp.model import STATIC_BUFFER, TEXT_BUFFER, AttnMvp
from ml.ranking.attn_mvp.recipes import RankerConfig
from ml.ranking.attn_mvp.score import validation_metrics
from ml.training.checkpoint import MODEL_FILE, load_model
from ml.training.collectives import current_replicas
from ml.training.loop import TrainJob

CONFIG_FILE = "ranker_config.json"
SPEC_FILE = "feature_spec.json"
_PROBE_EPOCH = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerInputs:
    """Hold what a ranker is trained on.

    Attributes:
        train: Sequences of the train split.
        validation: Sequences of the validation split.
        items: Facts of the items.
        spec: Vocabulary sizes.
    """

    train: SequenceData
    validation: SequenceData
    items: ItemTable
    spec: FeatureSpec


def build_model(config: RankerConfig, *, spec: FeatureSpec, items: ItemTable) -> AttnMvp:
    """Return a new model whose weights depend on the configuration's seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        return AttnMvp(config.model, spec=spec, items=items)


def ranker_job(inputs: RankerInputs, config: RankerConfig, *, folder: Path) -> TrainJob:
    """Return the training job of this replica.

    Args:
        inputs: Data and vocabulary.
        config: The whole recipe.
        folder: Where checkpoints go.
    """
    replicas = current_replicas()
    shard = Shard(rank=replicas.rank, size=replicas.size)
    batches = SequenceBatches(inputs.train, spec=inputs.spec, config=config.batches)
    validation = SequenceBatches(inputs.validation, spec=inputs.spec, config=config.batches)

    def probe(model: nn.Module, sync: int) -> Tensor:
        batch = next(islice(batches.epoch(_PROBE_EPOCH + sync), 1))
        return sequence_losses(model, batch)

    def validate(model: nn.Module) -> dict[str, float]:
        return validation_metrics(model, validation, spec=inputs.spec, collectives=replicas)

    return TrainJob(
        epoch=lambda number: batches.epoch(number, shard=shard),
        steps_per_epoch=batches.num_batches(size=replicas.size),
        loss=lambda model, batch: multi_task_loss(model(batch), batch),
        validate=validate,
        folder=folder,
        probe=probe,
        collectives=replicas,
        texts={CONFIG_FILE: to_json(config), SPEC_FILE: to_json(inputs.spec)},
    )


def sequence_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean target loss of each sequence, [B]."""
    batch = batch.to(next(model.parameters()).device)
    losses = event_losses(model(batch), batch)
    return losses.sum(dim=1) / batch.target.sum(dim=1).clamp(min=1)


def load_ranker(folder: Path) -> AttnMvp:
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
