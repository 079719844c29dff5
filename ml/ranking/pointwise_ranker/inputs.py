"""From columns to vectors: items, the context in which one is shown, and what came of one."""

import torch
from torch import Tensor, nn

from ml.batches import context_sizes
from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.layers.bag_embedding import BagEmbedding
from ml.ranking.pointwise_ranker.batches import NUM_AGE_BUCKETS, History, PointBatch

# Shapes: ... any leading shape, D item width, K outcome width, N targets, R requests, L events.
STATIC_BUFFER = "items.static_columns"


class ItemVectors(nn.Module):
    """Sum the embeddings of an item's id, tags, codes and author, in one look-up."""

    static_columns: Tensor

    def __init__(self, width: int, *, spec: FeatureSpec, items: ItemTable) -> None:
        """Create the table; what items share starts large and what is their own near zero."""
        super().__init__()
        static = [items.tags, items.codes, items.author[:, None]]
        columns = torch.cat([torch.from_numpy(part).to(torch.int32) for part in static], dim=1)
        self.register_buffer("static_columns", columns)
        shared = ((spec.num_tags,) * items.tags.shape[1]) + spec.code_sizes
        self.embedding = BagEmbedding(
            (spec.num_items + 1, *shared, spec.num_authors),
            width=width,
            scales=(0.02, *[0.3] * len(shared), 0.02),
        )

    def forward(self, item: Tensor) -> Tensor:
        """Return the items' vectors, [..., D], of indices [...]."""
        static_F = self.static_columns[item]
        return self.embedding(torch.cat([item[..., None], static_F], dim=-1))


class ContextVectors(nn.Module):
    """Lay the embeddings of the context columns side by side."""

    offsets: Tensor

    def __init__(self, width: int, *, spec: FeatureSpec) -> None:
        """Create one table for all columns."""
        super().__init__()
        sizes = context_sizes(spec)
        self.output_width = width * len(sizes)
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, batch: PointBatch) -> Tensor:
        """Return the context's features, [N, output_width]."""
        return self.embedding(batch.context + self.offsets).flatten(1)


class OutcomeVectors(nn.Module):
    """Turn what was done to an earlier event, and how long ago, into a vector."""

    def __init__(self, width: int, *, spec: FeatureSpec) -> None:
        """Create the map of the action bits and a table of dwell and age."""
        super().__init__()
        self.bits = nn.Linear(len(spec.actions), width)
        self.buckets = BagEmbedding(
            (spec.num_dwell_buckets, NUM_AGE_BUCKETS), width=width, scales=(0.1, 0.1)
        )

    def forward(self, history: History) -> Tensor:
        """Return outcomes_RLK."""
        columns = torch.stack([history.dwell, history.age], dim=-1)
        return self.bits(history.actions) + self.buckets(columns)
