"""Put data, model and loop together: what trains a prompt ranker, for any runner."""

from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ml.configuration import to_json
from ml.generative.prompt_ranker.batches import RankingBatches, RankingExamples
from ml.generative.prompt_ranker.inputs import PromptRankerInputs, answer_vocabulary
from ml.generative.prompt_ranker.loss import ranker_loss
from ml.generative.prompt_ranker.model import CONFIG_FILE, PromptRanker, build, config_text
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.inference.length_buckets import run_bucketed
from ml.tokenizers.prompt_tokenizer import TokenRows, tokenizer_texts
from ml.training.collectives import Collectives, current_replicas, validators
from ml.training.job import TrainJob
from ml.training.steps import in_steps

# Shapes: B prompts.

RECIPE_FILE = "recipe.json"
_VALIDATION_BATCH_TOKENS = 16_384
_PROBE_EPOCH = 1_000_000


def build_model(inputs: PromptRankerInputs, config: PromptRankerRecipe) -> PromptRanker:
    """Return a new model whose weights depend on the configuration's seed only."""
    vectors = inputs.token_vectors
    return build(
        config.model,
        vocabulary=answer_vocabulary(inputs.tokenizer),
        seed=config.training.seed,
        token_vectors_VW=None if vectors is None else torch.from_numpy(vectors),
    )


def prompt_ranker_job(
    model: PromptRanker,
    inputs: PromptRankerInputs,
    config: PromptRankerRecipe,
    *,
    folder: Path,
    step_batches: int | None = None,
) -> TrainJob:
    """Return the training job of this replica.

    Args:
        model: What is trained; read for its configuration.
        inputs: Data and vocabulary.
        config: The whole recipe.
        folder: Where checkpoints go.
        step_batches: Batches of a step over all replicas; one for each replica by default.
    """
    replicas = current_replicas()
    judges = validators(replicas, sharding=config.training.sharding)
    batches = RankingBatches(inputs.train, config=config.batches)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        batch = _on_device(model, batch)
        mean = ranker_loss(cast("PromptRanker", model), batch, config=config.loss)
        weight = torch.tensor(float(len(batch["labels"])), device=mean.device)
        return mean * weight, weight

    def probe(model: nn.Module, sync: int) -> Tensor:
        batch = next(islice(batches.epoch(_PROBE_EPOCH + sync), 1))
        return prompt_losses(model, _on_device(model, batch))

    job = TrainJob(
        epoch=batches.epoch,
        steps_per_epoch=batches.num_batches(),
        loss=loss,
        validate=lambda model: validation_metrics(model, inputs.validation, collectives=judges),
        folder=folder,
        probe=probe,
        collectives=replicas,
        texts={
            CONFIG_FILE: config_text(model),
            RECIPE_FILE: to_json(config),
            **tokenizer_texts(inputs.tokenizer),
        },
    )
    return in_steps(job, batches, step_batches=step_batches)


def prompt_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the answer loss of each prompt, [B]."""
    answers_B = 1 - batch["labels"].long()
    return nn.functional.cross_entropy(model(batch), answers_B, reduction="none")


def validation_metrics(
    model: nn.Module, examples: RankingExamples, *, collectives: Collectives
) -> dict[str, float]:
    """Return validation_loss and validation_ne, sharded over the replicas."""
    rows = np.arange(len(examples.label))[collectives.rank :: collectives.size]
    tokens = TokenRows(ids=examples.tokens.ids[rows], lengths=examples.tokens.lengths[rows])
    device = next(model.parameters()).device
    logits_N2 = run_bucketed(
        lambda batch: model(_on_device(model, batch)).to(device),
        tokens,
        max_batch_tokens=_VALIDATION_BATCH_TOKENS,
    )
    totals = torch.zeros(3, dtype=torch.float64)
    if len(rows):
        labels = torch.from_numpy(examples.label[rows])
        losses = nn.functional.cross_entropy(logits_N2.double(), 1 - labels, reduction="sum")
        totals += torch.tensor([float(losses), len(rows), float(labels.sum())])
    loss, count, positives = collectives.sum(totals).tolist()
    return {"validation_loss": loss / count, "validation_ne": _ne(loss / count, positives / count)}


def _ne(loss: float, rate: float) -> float:
    """Divide a mean cross-entropy by that of the base rate; NaN where there is one class only."""
    if rate in (0.0, 1.0):
        return float("nan")
    base = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return float(loss / base)


def _on_device(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}
