"""Put data, model and loop together: what trains a point-wise ranker, for any runner."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.batches import Shard
from ml.configuration import from_json, to_json
from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.expectation import Expectation
from ml.ranking.inputs import RankerInputs
from ml.ranking.pointwise_ranker.batches import PointBatches, PointInputs
from ml.ranking.pointwise_ranker.config import PointwiseRecipe
from ml.ranking.pointwise_ranker.inputs import STATIC_BUFFER
from ml.ranking.pointwise_ranker.loss import multi_task_loss, target_losses
from ml.ranking.pointwise_ranker.model import RATES_BUFFER, WEIGHTS_BUFFER, PointwiseRanker
from ml.ranking.pointwise_ranker.score import score
from ml.ranking.validation import entropy_metrics
from ml.training.checkpoint import MODEL_FILE, load_model
from ml.training.collectives import current_replicas
from ml.training.job import TrainJob
from ml.training.steps import in_steps

CONFIG_FILE = "ranker_config.json"
SPEC_FILE = "feature_spec.json"
_PROBE_EPOCH = 1_000_000


def build_model(
    recipe: PointwiseRecipe, *, spec: FeatureSpec, items: ItemTable, expectation: Expectation
) -> PointwiseRanker:
    """Return a new model whose weights depend on the recipe's seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        return PointwiseRanker(
            recipe.model,
            spec=spec,
            items=items,
            expectation=expectation,
            history_length=recipe.batches.history_length,
        )


def target_batches(
    data: SequenceData, recipe: PointwiseRecipe, *, model: PointwiseRanker, items: ItemTable
) -> PointBatches:
    """Return a split's batches as a model wants them.

    Args:
        data: Sequences of the split.
        recipe: Batch size and history; which events a history holds follows from the model's.
        model: Gives vocabulary and expectation.
        items: Facts of the items.
    """
    inputs = PointInputs(data=data, items=items, spec=model.spec, expectation=model.expectation)
    positives_only = recipe.model.history == "sasrec"
    return PointBatches(inputs, recipe.batches, positives_only=positives_only)


def pointwise_job(
    inputs: RankerInputs, recipe: PointwiseRecipe, *, model: PointwiseRanker, folder: Path
) -> TrainJob:
    """Return the training job of this replica.

    Args:
        inputs: Data and vocabulary.
        recipe: The whole recipe.
        model: The model to be trained.
        folder: Where checkpoints go.
    """
    replicas = current_replicas()
    shard = Shard(rank=replicas.rank, size=replicas.size)
    batches = target_batches(inputs.train, recipe, model=model, items=inputs.items)
    validation = target_batches(inputs.validation, recipe, model=model, items=inputs.items)

    def probe(model: nn.Module, sync: int) -> Tensor:
        batch = next(islice(batches.epoch(_PROBE_EPOCH + sync), 1))
        batch = batch.to(next(model.parameters()).device)
        return target_losses(model(batch), batch)

    def validate(model: nn.Module) -> dict[str, float]:
        scores_TA = score(model, validation, shard=shard)
        return entropy_metrics(
            scores_TA,
            inputs.validation,
            spec=inputs.spec,
            collectives=replicas,
            device=next(model.parameters()).device,
        )

    job = TrainJob(
        epoch=batches.epoch,
        steps_per_epoch=batches.num_batches(),
        loss=lambda model, batch: multi_task_loss(model(batch), batch),
        validate=validate,
        folder=folder,
        probe=probe if replicas.size > 1 else None,
        collectives=replicas,
        texts={CONFIG_FILE: to_json(recipe), SPEC_FILE: to_json(inputs.spec)},
    )
    return in_steps(job, batches)


def load_pointwise(folder: Path) -> tuple[PointwiseRanker, PointwiseRecipe]:
    """Return model and recipe of a checkpoint; item facts and expectation come with the weights.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    recipe = from_json(PointwiseRecipe, (folder / CONFIG_FILE).read_text())
    spec = from_json(FeatureSpec, (folder / SPEC_FILE).read_text())
    weights = load_file(folder / MODEL_FILE)
    items = item_facts(weights[STATIC_BUFFER].numpy(), num_codes=len(spec.code_sizes))
    expectation = Expectation(
        rates=weights[RATES_BUFFER].numpy(), weights=weights[WEIGHTS_BUFFER].numpy()
    )
    model = build_model(recipe, spec=spec, items=items, expectation=expectation)
    load_model(folder, model)
    return model.eval(), recipe


def item_facts(static_columns: np.ndarray, *, num_codes: int) -> ItemTable:
    """Return the item table that a model's static columns were made from, without its texts.

    Args:
        static_columns: Tags, codes and author of each item, [N + 1, F].
        num_codes: Levels of the semantic ID.
    """
    num_tags = static_columns.shape[1] - num_codes - 1
    return ItemTable(
        tags=static_columns[:, :num_tags],
        codes=static_columns[:, num_tags:-1],
        author=static_columns[:, -1],
        embedding=np.zeros((len(static_columns), 0), np.float32),
        tag_names=np.array([], str),
    )
