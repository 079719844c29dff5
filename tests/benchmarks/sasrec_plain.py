"""SASRec as most people write it: nn.TransformerEncoder, right padding, logits at every place."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.retrieval.sasrec.model import SasRec, SasRecConfig

# Shapes: B sequences, L places, V items.
NO_TARGET = -100


class PlainSasRec(nn.Module):
    """The same network as `SasRec` with `norm_first`, without packing or a chunked loss.

    `nn.TransformerEncoderLayer` drops attention weights, branches and inner activations alike.
    """

    def __init__(self, config: SasRecConfig, *, num_items: int) -> None:
        """Create tables and encoder of the same sizes; row `num_items` is the padding's."""
        super().__init__()
        self.items = nn.Embedding(num_items + 1, config.width, padding_idx=num_items)
        self.places = nn.Embedding(config.length, config.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=config.init_std)
        self.input_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.feed_forward * config.width,
            config.residual_dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(config.width), enable_nested_tensor=False
        )

    def forward(self, items_BL: Tensor) -> Tensor:
        """Return the logits of all items at every place, [B, L, V]."""
        length = items_BL.shape[1]
        x_BLD = self.items(items_BL) + self.places(torch.arange(length))
        mask_LL = torch.ones(length, length, dtype=torch.bool).triu(1)
        states_BLD = self.encoder(
            self.dropout(self.input_norm(x_BLD)),
            mask=mask_LL,
            src_key_padding_mask=items_BL == self.items.padding_idx,
            is_causal=True,
        )
        return states_BLD @ self.items.weight[:-1].T

    def loss(self, items_BL: Tensor, targets_BL: Tensor) -> Tensor:
        """Return the mean cross-entropy over the places with a target."""
        logits = self(items_BL).flatten(0, 1)
        return nn.functional.cross_entropy(logits, targets_BL.flatten(), ignore_index=NO_TARGET)

    def take_weights(self, model: SasRec) -> None:
        """Take the weights of our model, name by name."""
        names = {
            "attention_norm": "norm1",
            "feed_forward_norm": "norm2",
            "query_key_value.": "self_attn.in_proj_",
            "output.": "self_attn.out_proj.",
            "feed_forward.0": "linear1",
            "feed_forward.2": "linear2",
            "encoder.blocks": "encoder.layers",
            "encoder.output_norm": "encoder.norm",
            "encoder.input_norm": "input_norm",
        }
        state = {}
        for name, value in model.state_dict().items():
            renamed = name
            for ours, theirs in names.items():
                renamed = renamed.replace(ours, theirs)
            state[renamed] = value
        padding = torch.zeros(1, self.items.embedding_dim)
        state["items.weight"] = torch.cat([state["items.weight"], padding])
        self.load_state_dict(state)


def padded(
    windows: Sequence[NDArray[np.int64]], *, length: int, padding: int
) -> tuple[Tensor, Tensor]:
    """Return items_BL and targets_BL of training windows, padded on the right to `length`."""
    items = torch.full((len(windows), length), padding)
    targets = torch.full((len(windows), length), NO_TARGET)
    for row, window in enumerate(windows):
        items[row, : len(window) - 1] = torch.from_numpy(window[:-1])
        targets[row, : len(window) - 1] = torch.from_numpy(window[1:])
    return items, targets
