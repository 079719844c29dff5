"""The two streams of a sequence ranker: what was shown, and what came of it."""

import torch
from torch import Tensor, nn

from ml.batches import CONTEXT_COLUMNS, Batch, context_sizes
from ml.features import FeatureSpec
from ml.item_table import ItemTable
from ml.layers.bag_embedding import BagEmbedding
from ml.layers.sharded_embedding import ShardedEmbedding, plain_table
from ml.ranking.sequence_ranker.config import SequenceRankerConfig

# Shapes: B sequences, S events, D width, C context columns, F columns.
_ID_SCALE = 0.02
STATIC_BUFFER = "items.static_columns"
TEXT_BUFFER = "items.text_vectors"


def context_columns(config: SequenceRankerConfig, *, spec: FeatureSpec) -> dict[int, int]:
    """Return the context columns that are features: place in the batch to vocabulary."""
    sizes = dict(enumerate(context_sizes(spec)))
    if config.position_offsets:
        del sizes[CONTEXT_COLUMNS.index("position")]
    return sizes


class ItemEncoder(nn.Module):
    """Turn what is known when an item is shown into one vector."""

    static_columns: Tensor
    text_vectors: Tensor

    def __init__(
        self, config: SequenceRankerConfig, *, spec: FeatureSpec, items: ItemTable
    ) -> None:
        """Build the table of embeddings and the MLP after it."""
        super().__init__()
        static = [items.tags, items.codes, items.author[:, None]]
        columns = torch.cat([torch.from_numpy(part).to(torch.int32) for part in static], dim=1)
        self.register_buffer("static_columns", columns)
        tags, codes = (spec.num_tags,) * items.tags.shape[1], spec.code_sizes
        context = context_columns(config, spec=spec)
        self._places = list(context)
        # Tags start large, and what few items share starts near zero: attention, which starts
        # from similarity, then finds events of the same kind at once. Codes as large as tags cost
        # AttnMVP 0.019 of validation NE on the simulated feed.
        sizes = (*tags, *codes, spec.num_authors, *context.values())
        scales = (*[0.3] * len(tags), *[0.02] * (len(codes) + 1), *[0.05] * len(context))
        self.ids = _id_table(config, num_rows=spec.num_items + 1)
        if self.ids is None:
            sizes, scales = (spec.num_items + 1, *sizes), (_ID_SCALE, *scales)
        self.embedding = BagEmbedding(sizes, width=config.width, scales=scales)
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 2 * config.width),
            nn.ReLU(),
            nn.Linear(2 * config.width, config.width),
        )
        self.norm = nn.LayerNorm(config.width)
        self.text = None
        if config.uses_text_embedding:
            self.register_buffer("text_vectors", torch.from_numpy(items.embedding))
            self.text = nn.Linear(items.embedding.shape[1], config.width, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        """Return items_BSD."""
        static_BSF = self.static_columns[batch.item]
        context_BSF = batch.context[..., self._places]
        if self.ids is None:
            columns = torch.cat([batch.item[..., None], static_BSF, context_BSF], dim=-1)
            x_BSD = self.embedding(columns)
        else:
            columns = torch.cat([static_BSF, context_BSF], dim=-1)
            x_BSD = self.embedding(columns) + self.ids(batch.item)
        if self.text is not None:
            x_BSD = x_BSD + self.text(self.text_vectors[batch.item])
        return self.norm(x_BSD + self.mlp(x_BSD))


def _id_table(
    config: SequenceRankerConfig, *, num_rows: int
) -> nn.Embedding | ShardedEmbedding | None:
    """Return the table of item ids, None where they are columns of the one table."""
    if config.item_table == "replicated":
        return None
    # Of torch's generator, as all other weights: so the model's seed tells tables apart too.
    seed = int(torch.randint(1 << 31, ()))
    table = plain_table if config.item_table == "sparse" else ShardedEmbedding
    return table(num_rows, config.width, seed=seed, scale=_ID_SCALE)


class OutcomeEncoder(nn.Module):
    """Turn the outcomes of an event, and the item they came of, into one vector."""

    def __init__(self, config: SequenceRankerConfig, *, spec: FeatureSpec) -> None:
        """Build the MLP over the action bits and the dwell bucket, and the one that joins items."""
        super().__init__()
        width = config.width
        self.bits = nn.Linear(len(spec.actions), width)
        self.dwell = nn.Embedding(spec.num_dwell_buckets, width)
        self.output = nn.Linear(width, width)
        self.joint = None
        # Interleaved rows carry their item and pass whole blocks: they need no other network.
        if config.outcomes == "with_item" and config.scheme != "interleaved":
            self.joint = nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, width),
            )
            # At first nothing is added, so that attention still starts from similar items.
            nn.init.zeros_(self.joint[-1].get_parameter("weight"))
            nn.init.zeros_(self.joint[-1].get_parameter("bias"))

    def forward(self, items_BSD: Tensor, batch: Batch) -> Tensor:
        """Return outcomes_BSD."""
        hidden = self.bits(batch.actions) + self.dwell(batch.dwell)
        outcomes_BSD = self.output(torch.relu(hidden))
        if self.joint is None:
            return outcomes_BSD
        return outcomes_BSD + self.joint(items_BSD + outcomes_BSD)
