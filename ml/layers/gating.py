"""Dense gating: let a hidden layer scale its own units, example by example."""

from itertools import pairwise

import torch
from torch import Tensor, nn

# Shapes: ... any leading shape, D width.
_OPEN_BIAS = 2.0  # sigmoid(2) = 0.88: gates start open


class DenseGate(nn.Module):
    """Multiply a hidden vector by gates that a narrow map of it computes: h * sigmoid(W h + b).

    W is of low rank, so the gates cost 2 D K + D parameters for a bottleneck of K.

    Source: lirank 5.3, after GateNet's hidden gate (arXiv 2007.03519).
    """

    def __init__(self, width: int, *, bottleneck: int | None = None) -> None:
        """Create the map; the gates start open.

        Args:
            width: Width of the hidden vector.
            bottleneck: Rank of the map, None for an eighth of the width.

        Raises:
            ValueError: If the bottleneck is below 1.
        """
        super().__init__()
        rank = max(1, width // 8) if bottleneck is None else bottleneck
        if rank < 1:
            raise ValueError(f"a gate's bottleneck must be at least 1, got {rank}")
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)
        nn.init.constant_(self.up.bias, _OPEN_BIAS)

    def forward(self, hidden_D: Tensor) -> Tensor:
        """Return the gated vector, [..., D]."""
        return hidden_D * torch.sigmoid(self.up(self.down(hidden_D)))


def gated_mlp(widths: tuple[int, ...], *, gated: bool = True) -> nn.Sequential:
    """Return a ReLU network whose every hidden layer is followed by a dense gate.

    Args:
        widths: Width of the input and of every hidden layer; at least two.
        gated: Whether the gates are there; without them it is the plain network.

    Raises:
        ValueError: If there is no hidden layer.
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name the input and a hidden layer, got {widths}")
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
        parts += [DenseGate(outputs)] if gated else []
    return nn.Sequential(*parts)
