"""One table for many categorical columns; an event's vector is the sum of its entries' rows."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

# Shapes: ... any leading shape, F columns, D width.


class BagEmbedding(nn.Module):
    """Embed F categorical columns into the sum of their vectors in one look-up.

    A sum of embeddings is the first linear layer over the concatenated one-hot columns, so
    nothing is lost against concatenation, and it is much cheaper on a CPU.
    """

    offsets: Tensor

    def __init__(self, sizes: tuple[int, ...], *, width: int, scales: tuple[float, ...]) -> None:
        """Create the table.

        Args:
            sizes: Vocabulary of each column.
            width: Width of the vectors.
            scales: Standard deviation of the initial weights of each column.
        """
        super().__init__()
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(torch.int32)
        self.register_buffer("offsets", offsets, persistent=False)
        scale = torch.tensor(scales).repeat_interleave(torch.tensor(sizes))
        self.weight = nn.Parameter(torch.randn(sum(sizes), width) * scale[:, None])

    def forward(self, columns_F: Tensor) -> Tensor:
        """Return the summed vectors, [..., D], of int32 columns [..., F]."""
        indices = columns_F + self.offsets
        flat = indices.reshape(-1, indices.shape[-1])
        return embedding_bag(flat, self.weight, mode="sum").unflatten(0, indices.shape[:-1])
