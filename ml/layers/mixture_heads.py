"""Multi-gate mixture of experts: groups of tasks weigh the same experts, each in its own way."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from ml.layers.cross import CrossNetwork

# Shapes: ... any leading shape, N examples, E experts, G groups, D width, I and O input and output.


class StackedLinear(nn.Module):
    """Apply E linear maps of the same shape, each to its expert's vectors, in one product."""

    def __init__(self, experts: int, *, inputs: int, outputs: int, bias: bool = True) -> None:
        """Create the maps, initialised as `nn.Linear` does.

        Args:
            experts: Number of maps.
            inputs: Width of the vectors.
            outputs: Width of the results.
            bias: Whether each map has one.
        """
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight_EIO = nn.Parameter(torch.empty(experts, inputs, outputs))
        nn.init.uniform_(self.weight_EIO, -bound, bound)
        self.bias_EO = nn.Parameter(torch.empty(experts, outputs)) if bias else None
        if self.bias_EO is not None:
            nn.init.uniform_(self.bias_EO, -bound, bound)

    def forward(self, x_ENI: Tensor) -> Tensor:
        """Return the mapped vectors, [E, N, O]."""
        if self.bias_EO is None:
            return torch.bmm(x_ENI, self.weight_EIO)
        return torch.baddbmm(self.bias_EO[:, None], x_ENI, self.weight_EIO)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertConfig:
    """Say what one expert is.

    Attributes:
        experts: Number of experts.
        hidden: Width of its hidden layer.
        output: Width of its result.
        cross_layers: Low-rank cross layers beside the hidden layer; 0 for a plain MLP.
        cross_rank: Their rank.
    """

    experts: int = 4
    hidden: int = 128
    output: int = 64
    cross_layers: int = 0
    cross_rank: int = 16

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a size is out of range.
        """
        if min(self.experts, self.hidden, self.output, self.cross_rank) < 1:
            raise ValueError("experts, hidden, output and cross_rank must be at least 1")
        if self.cross_layers < 0:
            raise ValueError(f"cross_layers must not be negative, got {self.cross_layers}")


class Experts(nn.Module):
    """Compute all experts at once: an MLP each, with a low-rank cross network beside it if asked.

    An expert is output(concat(relu(hidden(x)), cross(x))), without the second part if there are
    no cross layers.
    """

    def __init__(self, width: int, *, config: ExpertConfig) -> None:
        """Create the stacked maps.

        Args:
            width: Width of the input.
            config: Number, kind and widths of the experts.
        """
        super().__init__()
        self.count = config.experts
        self.output_width = config.output
        self.hidden = StackedLinear(config.experts, inputs=width, outputs=config.hidden)
        rank = config.cross_rank
        self.down = nn.ModuleList(
            StackedLinear(config.experts, inputs=width, outputs=rank, bias=False)
            for _ in range(config.cross_layers)
        )
        self.up = nn.ModuleList(
            StackedLinear(config.experts, inputs=rank, outputs=width)
            for _ in range(config.cross_layers)
        )
        joint = config.hidden + (width if config.cross_layers else 0)
        self.output = StackedLinear(config.experts, inputs=joint, outputs=config.output)

    def forward(self, x_D: Tensor) -> Tensor:
        """Return every expert's vector, [..., E, O]."""
        start_END = x_D.reshape(1, -1, x_D.shape[-1]).expand(self.count, -1, -1)
        parts = [torch.relu(self.hidden(start_END))]
        if len(self.down):
            parts.append(self._cross(start_END))
        result_ENO = self.output(torch.cat(parts, dim=-1))
        return result_ENO.transpose(0, 1).reshape(*x_D.shape[:-1], self.count, -1)

    def _cross(self, start_END: Tensor) -> Tensor:
        """Return the crossed features of every expert, [E, N, D]."""
        x_END = start_END
        for down, up in zip(self.down, self.up, strict=True):
            x_END = torch.addcmul(x_END, start_END, up(down(x_END)))
        return x_END


class ParallelCross(nn.Module):
    """Run a cross network beside an MLP and project both together: "parallel DCNv2".

    Source: feed-sr 4.1, lirank 5.2.
    """

    def __init__(self, width: int, *, config: ExpertConfig) -> None:
        """Create both branches and the projection.

        Args:
            width: Width of the input.
            config: Widths, cross layers and rank; the number of experts is not used.

        Raises:
            ValueError: If there are no cross layers.
        """
        super().__init__()
        if not config.cross_layers:
            raise ValueError("parallel DCNv2 needs cross_layers of at least 1")
        self.output_width = config.output
        self.hidden = nn.Linear(width, config.hidden)
        self.cross = CrossNetwork(width, layers=config.cross_layers, rank=config.cross_rank)
        self.output = nn.Linear(config.hidden + width, config.output)

    def forward(self, x_D: Tensor) -> Tensor:
        """Return the head's vector, [..., O]."""
        return self.output(torch.cat([torch.relu(self.hidden(x_D)), self.cross(x_D)], dim=-1))


class MultiGateMixture(nn.Module):
    """Give every group of tasks its own mixture of shared experts.

    A group's weights are a softmax over the experts. In training, dropout removes weights after
    the softmax and scales the kept ones up; they are not made to sum to 1 again, so that their
    expectation is the softmax.

    Source: feed-sr 4.1.
    """

    def __init__(
        self, width: int, *, experts: Experts, groups: int, gate_dropout: float = 0.1
    ) -> None:
        """Create the gates.

        Args:
            width: Width of the input.
            experts: Computes [..., E, O] of [..., D].
            groups: Number of task groups.
            gate_dropout: Chance that a weight is removed.

        Raises:
            ValueError: If the chance is not within 0 and 1, or there is no group.
        """
        super().__init__()
        if groups < 1 or not 0 <= gate_dropout < 1:
            raise ValueError("groups must be at least 1 and gate_dropout within [0, 1)")
        self._groups, self.dropout_fraction = groups, gate_dropout
        self.output_width = experts.output_width
        self.experts = experts
        self.gates = nn.Linear(width, groups * experts.count)

    def forward(self, x_D: Tensor) -> Tensor:
        """Return one vector per group, [..., G, O]."""
        weights_GE = self.weights(x_D)
        weights_GE = dropout(weights_GE, self.dropout_fraction, training=self.training)
        return weights_GE @ self.experts(x_D)

    def weights(self, x_D: Tensor) -> Tensor:
        """Return each group's weights over the experts before dropout, [..., G, E]."""
        return self.gates(x_D).unflatten(-1, (self._groups, -1)).softmax(dim=-1)
