"""Put data, model and loop together: what trains a dual encoder, for any runner."""

from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ml.batches import Shard
from ml.configuration import to_json
from ml.inference.length_buckets import run_bucketed
from ml.retrieval.dual_encoder.batches import ItemPrompts, RetrievalBatches
from ml.retrieval.dual_encoder.inputs import RetrieverInputs
from ml.retrieval.dual_encoder.loss import contrastive_loss, info_nce
from ml.retrieval.dual_encoder.model import CONFIG_FILE, DualEncoder, build, config_text
from ml.retrieval.dual_encoder.recipes import RetrieverConfig
from ml.retrieval.knn import ItemIndex, hide_items
from ml.tokenizers.prompt_tokenizer import TokenRows, tokenizer_texts
from ml.training.collectives import Collectives, current_replicas, validators
from ml.training.job import TrainJob

# Shapes: N rows, Q queries, B members.

RECIPE_FILE = "recipe.json"
EMBED_BATCH_TOKENS = 32_768
_PROBE_EPOCH = 1_000_000


def build_model(inputs: RetrieverInputs, config: RetrieverConfig) -> DualEncoder:
    """Return a new model whose weights depend on the configuration's seed only."""
    vectors = inputs.token_vectors
    return build(
        config.model,
        vocabulary_size=len(inputs.tokenizer),
        seed=config.training.seed,
        token_vectors_VW=None if vectors is None else torch.from_numpy(vectors),
    )


def retriever_job(
    model: DualEncoder, inputs: RetrieverInputs, config: RetrieverConfig, *, folder: Path
) -> TrainJob:
    """Return the training job of this replica.

    Args:
        model: What is trained; read for its configuration.
        inputs: Data and vocabulary.
        config: The whole recipe.
        folder: Where checkpoints go.
    """
    replicas = current_replicas()
    judges = validators(replicas, sharding=config.training.sharding)
    shard = Shard(rank=replicas.rank, size=replicas.size)
    batches = RetrievalBatches(inputs.train, inputs.items, config=config.batches)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        batch = _on_device(model, batch)
        queries_QD, items_CD = model(batch)
        mean = contrastive_loss(queries_QD, items_CD, batch, config=config.loss)
        weight = torch.tensor(float(len(batch["target"])), device=mean.device)
        return mean * weight, weight

    def probe(model: nn.Module, sync: int) -> Tensor:
        batch = next(islice(batches.epoch(_PROBE_EPOCH + sync), 1))
        return query_losses(model, _on_device(model, batch), config=config)

    return TrainJob(
        epoch=lambda number: batches.epoch(number, shard=shard, pooled=config.loss.gather),
        steps_per_epoch=batches.num_batches(size=replicas.size),
        loss=loss,
        validate=lambda model: validation_metrics(model, inputs, config=config, collectives=judges),
        folder=folder,
        probe=probe,
        collectives=replicas,
        texts={
            CONFIG_FILE: config_text(model),
            RECIPE_FILE: to_json(config),
            **tokenizer_texts(inputs.tokenizer),
        },
    )


def query_losses(model: nn.Module, batch: dict[str, Tensor], *, config: RetrieverConfig) -> Tensor:
    """Return the mean loss of each member's queries against this batch's candidates, [B]."""
    queries_QD, items_CD = model(batch)
    logits_QC = queries_QD @ items_CD.T / config.loss.temperature
    if config.loss.use_log_q:
        logits_QC = logits_QC - batch["candidate_log_q"]
    losses_Q = nn.functional.cross_entropy(logits_QC, batch["target"], reduction="none")
    sums_B = torch.zeros(len(batch["member_ids"]), device=losses_Q.device)
    counts_B = torch.bincount(batch["query_rows"], minlength=len(sums_B)).clamp(min=1)
    return sums_B.index_add(0, batch["query_rows"], losses_Q) / counts_B


def validation_metrics(
    model: nn.Module,
    inputs: RetrieverInputs,
    *,
    config: RetrieverConfig,
    collectives: Collectives,
) -> dict[str, float]:
    """Rank the validation's catalogue for its members, sharded over the replicas.

    Returns:
        validation_loss, the InfoNCE over the full catalogue without the member's earlier
        positives, and validation_recall_at_10.
    """
    index = catalogue_index(model, inputs.items, day=inputs.catalogue_day)
    examples = inputs.validation
    known = np.isin(examples.item, index.item_index.numpy())
    rows = np.flatnonzero(known)[collectives.rank :: collectives.size]
    totals = torch.zeros(3, dtype=torch.float64)
    if len(rows):
        members_QD = embed_rows(model, _taken(examples.tokens, rows))
        place = {int(item): column for column, item in enumerate(index.item_index)}
        target_Q = torch.tensor([place[int(item)] for item in examples.item[rows]])
        scores = members_QD @ index.items.T / config.loss.temperature
        hidden = [[i for i in examples.history[r] if i != examples.item[r]] for r in rows]
        scores = hide_items(scores, hidden, item_index_N=index.item_index)
        own_Q1 = scores.gather(1, target_Q[:, None])
        hits = ((scores > own_Q1).sum(dim=1) < 10).sum()
        totals += torch.tensor([len(rows), float(info_nce(scores, target_Q)) * len(rows), hits])
    count, loss, hits = collectives.sum(totals).tolist()
    return {
        "validation_loss": loss / count if count else float("nan"),
        "validation_recall_at_10": hits / count if count else float("nan"),
    }


def embed_rows(model: nn.Module, tokens: TokenRows) -> Tensor:
    """Embed token rows in evaluation mode, on the CPU, in row order."""
    device = next(model.parameters()).device
    model.eval()

    def forward(batch: dict[str, Tensor]) -> Tensor:
        lengths_B = batch["attention_mask"].sum(dim=1).to(device)
        return cast("DualEncoder", model).embed(batch["input_ids"].to(device), lengths_B)

    return run_bucketed(forward, tokens, max_batch_tokens=EMBED_BATCH_TOKENS)


def catalogue_index(model: nn.Module, items: ItemPrompts, *, day: int) -> ItemIndex:
    """Embed every item that has a prompt on a day or before, by its newest one.

    Raises:
        ValueError: If there is none.
    """
    distinct = np.unique(items.item[items.day <= day])
    if not len(distinct):
        raise ValueError("no item prompt on the catalogue's day or before it")
    rows = items.rows(distinct, np.full(len(distinct), day, dtype=np.int64))
    return ItemIndex(
        items=embed_rows(model, _taken(items.tokens, rows)), item_index=torch.from_numpy(distinct)
    )


def _taken(tokens: TokenRows, rows: np.ndarray) -> TokenRows:
    return TokenRows(ids=tokens.ids[rows], lengths=tokens.lengths[rows])


def _on_device(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}
