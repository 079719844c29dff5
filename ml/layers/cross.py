"""Cross networks: polynomial feature interactions by repeated products with the input.

A cross layer is x <- x0 * (W x + b) + x. Its map W is full, or of low rank (up after down), and
the attention form mixes the low-rank coordinates of each example with one another in between.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

# Shapes: ... any leading shape, D width, R rank, M coordinate groups of W coordinates, M W = R.
_LARGEST_DEFAULT_RANK = 256


def default_rank(width: int) -> int:
    """Return a quarter of the width, at least 1 and at most 256."""
    return max(1, min(width // 4, _LARGEST_DEFAULT_RANK))


class CrossLayer(nn.Module):
    """Cross the input with a linear map of the running vector.

    The full map has D^2 + D parameters, the low-rank one 2 D R + D.

    Source: lirank 5.2 (DCNv2, arXiv 2008.13535).
    """

    def __init__(self, width: int, *, rank: int | None = None) -> None:
        """Create the map.

        Args:
            width: Width of input and output.
            rank: Rank of the map, None for a full one.

        Raises:
            ValueError: If the rank is not within 1 and the width.
        """
        super().__init__()
        if rank is None:
            self.down: nn.Module = nn.Identity()
            self.up = nn.Linear(width, width)
        else:
            _check_rank(rank, width)
            self.down = nn.Linear(width, rank, bias=False)
            self.up = nn.Linear(rank, width)

    def forward(self, x_D: Tensor, *, start_D: Tensor) -> Tensor:
        """Return start * map(x) + x, [..., D]."""
        return torch.addcmul(x_D, start_D, self.up(self.down(x_D)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossAttention:
    """Say how the low-rank coordinates of an example look at one another.

    Attributes:
        head_width: Coordinates per group; groups attend to groups. Divides the rank.
        skip: Whether the unmixed values are added to the mixed ones.
        identity: Whether groups see themselves only, which leaves a plain low-rank layer.
    """

    head_width: int = 1
    skip: bool = True
    identity: bool = False


class AttentionCrossLayer(nn.Module):
    """Cross with a low-rank map between whose halves an attention matrix stands.

    Query, key and value are three low-rank maps of the vector, and scores are scaled by a learned
    temperature. It has 4 D R + D parameters and the temperature. The paper publishes no formula:
    this one meets its words (three maps, scores in between, temperature, skip, and the plain
    layer if the scores are the identity and the skip is off).

    Source: lirank 5.2 (residual cross network, arXiv 2402.06859).
    """

    def __init__(
        self, width: int, *, rank: int, attention: CrossAttention = CrossAttention()
    ) -> None:
        """Create the maps.

        Args:
            width: Width of input and output.
            rank: Width of queries, keys and values.
            attention: How coordinates are grouped and mixed.

        Raises:
            ValueError: If the rank is out of range or the groups do not divide it.
        """
        super().__init__()
        _check_rank(rank, width)
        if attention.head_width < 1 or rank % attention.head_width:
            raise ValueError(
                f"head_width {attention.head_width} does not divide rank {rank}; choose a divisor"
            )
        self._attention = attention
        self.query = nn.Linear(width, rank, bias=False)
        self.key = nn.Linear(width, rank, bias=False)
        self.value = nn.Linear(width, rank, bias=False)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.up = nn.Linear(rank, width)

    def forward(self, x_D: Tensor, *, start_D: Tensor) -> Tensor:
        """Return start * map(x) + x, [..., D]."""
        value_R = self.value(x_D)
        mixed_R = value_R if self._attention.identity else self._mix(x_D, value_R)
        if self._attention.skip:
            mixed_R = mixed_R + value_R
        return torch.addcmul(x_D, start_D, self.up(mixed_R))

    def _mix(self, x_D: Tensor, value_R: Tensor) -> Tensor:
        """Return the values mixed by softmax(q k / (sqrt(W) temperature)), [..., R]."""
        query_R = self.query(x_D) * torch.exp(-self.log_temperature)
        query, key, value = (self._groups(t) for t in (query_R, self.key(x_D), value_R))
        mixed_NMW = scaled_dot_product_attention(query, key, value)
        return mixed_NMW.reshape(value_R.shape)

    def _groups(self, x_R: Tensor) -> Tensor:
        """Return the coordinate groups of every example, [N, M, W]."""
        return x_R.reshape(
            -1, x_R.shape[-1] // self._attention.head_width, self._attention.head_width
        )


class CrossNetwork(nn.Module):
    """Stack plain cross layers, all of which multiply by the first input."""

    def __init__(self, width: int, *, layers: int = 2, rank: int | None = None) -> None:
        """Create the layers.

        Args:
            width: Width of input and output.
            layers: Number of layers; the degree of the polynomial is one more.
            rank: Rank of the maps, None for full ones.
        """
        super().__init__()
        self.output_width = width
        self.layers = nn.ModuleList(CrossLayer(width, rank=rank) for _ in range(layers))

    def forward(self, start_D: Tensor) -> Tensor:
        """Return the crossed features, [..., D]."""
        x_D = start_D
        for layer in self.layers:
            x_D = layer(x_D, start_D=start_D)
        return x_D


class ResidualCrossNetwork(nn.Module):
    """Run a plain low-rank cross network and one of attention layers side by side.

    Source: lirank 5.2.
    """

    def __init__(
        self,
        width: int,
        *,
        layers: int = 2,
        rank: int | None = None,
        attention: CrossAttention = CrossAttention(),
        concatenate: bool = True,
    ) -> None:
        """Create both networks.

        Args:
            width: Width of the input.
            layers: Layers of each network.
            rank: Rank of all maps, None for `default_rank`.
            attention: How coordinates are grouped and mixed.
            concatenate: Whether both results are returned side by side (2 D) or summed (D).
        """
        super().__init__()
        rank = default_rank(width) if rank is None else rank
        self._concatenate = concatenate
        self.output_width = 2 * width if concatenate else width
        self.plain = CrossNetwork(width, layers=layers, rank=rank)
        self.attentive = nn.ModuleList(
            AttentionCrossLayer(width, rank=rank, attention=attention) for _ in range(layers)
        )

    def forward(self, start_D: Tensor) -> Tensor:
        """Return the crossed features, [..., 2 D] or [..., D]."""
        x_D = start_D
        for layer in self.attentive:
            x_D = layer(x_D, start_D=start_D)
        plain_D = self.plain(start_D)
        return torch.cat([plain_D, x_D], dim=-1) if self._concatenate else plain_D + x_D


def _check_rank(rank: int, width: int) -> None:
    """Refuse a rank that a map of this width cannot have.

    Raises:
        ValueError: If the rank is not within 1 and the width.
    """
    if not 1 <= rank <= width:
        raise ValueError(f"rank {rank} does not fit width {width}; choose one from 1 to {width}")
