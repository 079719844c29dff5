"""SIREN-RoPE: rotary angles that a small network learns from the timestamp.

Angle = f(time) * frequency + position * ordinal frequency * order scale. What an event is stays
in its embedding, when it was goes into the rotation. Calendar features are absolute, so unlike
ordinal angles these are not invariant to a shift of all times.
Source: siren-rope 1.2 and 1.3.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import Literal

import torch
from torch import Tensor, nn

from ml.features import NO_TIME
from ml.layers.rotary import DEFAULT_BASE, Angles, pair_frequencies
from ml.layers.time_features import NUM_TIME_FEATURES, TimeFeatures

# Shapes: B sequences, S events, W head width (even), R angles per event before tiling.


@dataclass(frozen=True, kw_only=True, slots=True)
class SirenConfig:
    """Size the network of the angles.

    Attributes:
        branches: Which branches are summed: the sine network, the ReLU one, or both.
        width: Units of each hidden layer.
        hidden_layers: Hidden layers of each branch, before the linear output.
        omega: Factor inside the sines.
        num_angles: Angles per event, each shared by neighbouring pairs; None is one per pair.
        zero_init_last: Start both branches at zero, which is exactly the ordinal rotation.
    """

    branches: Literal["both", "sin", "dnn"] = "both"
    width: int = 64
    hidden_layers: int = 2
    omega: float = 10.0
    num_angles: int | None = None
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a size is not positive or the branches are unknown.
        """
        if self.branches not in ("both", "sin", "dnn"):
            raise ValueError(f"branches are both, sin or dnn, not {self.branches!r}")
        if min(self.width, self.hidden_layers, self.num_angles or 1) < 1:
            raise ValueError("width, hidden_layers and num_angles must be at least 1")


class SineNetwork(nn.Module):
    """Map features to angles through layers sin(omega (Wx + b)) and a linear output."""

    def __init__(self, sizes: tuple[int, ...], *, omega: float) -> None:
        """Create the layers; biases start as torch's.

        Args:
            sizes: Widths from the inputs to the outputs.
            omega: Factor inside the sines.
        """
        super().__init__()
        self._omega = omega
        self.layers = nn.ModuleList(nn.Linear(fan_in, out) for fan_in, out in pairwise(sizes))
        for place, (layer, fan_in) in enumerate(zip(self.layers, sizes, strict=False)):
            bound = 1 / fan_in if place == 0 else (6 / fan_in) ** 0.5 / omega
            nn.init.uniform_(layer.get_parameter("weight"), -bound, bound)

    def forward(self, features_BSF: Tensor) -> Tensor:
        """Return angles_BSR, unbounded."""
        x = features_BSF
        for layer in self.layers[:-1]:
            x = torch.sin(self._omega * layer(x))
        return self.layers[-1](x)


class SirenAngle(nn.Module):
    """Sum a sine and a ReLU network of one depth and width."""

    def __init__(self, *, inputs: int, outputs: int, config: SirenConfig) -> None:
        """Create the branches that the configuration names.

        Args:
            inputs: Features per event.
            outputs: Angles per event.
            config: Sizes and branches.
        """
        super().__init__()
        sizes = (inputs, *[config.width] * config.hidden_layers, outputs)
        self.branches = nn.ModuleDict()
        if config.branches != "dnn":
            self.branches["sin"] = SineNetwork(sizes, omega=config.omega)
        if config.branches != "sin":
            self.branches["dnn"] = _relu_network(sizes)
        if config.zero_init_last:
            last = {"sin": f"layers.{config.hidden_layers}", "dnn": f"{2 * config.hidden_layers}"}
            for name, branch in self.branches.items():
                for parameter in branch.get_submodule(last[name]).parameters():
                    nn.init.zeros_(parameter)

    def forward(self, features_BSF: Tensor) -> Tensor:
        """Return angles_BSR, unbounded."""
        return torch.stack([branch(features_BSF) for branch in self.branches.values()]).sum(0)


class SirenRope(nn.Module):
    """Turn by learned angles of the time plus scaled ordinal angles.

    The stack and the final pooling have networks of their own and share frequency and order
    scale. Everything is computed in the parameters' own precision, float32 unless the model was
    made float64, whatever format the forward pass has otherwise.
    """

    ordinal_frequencies: Tensor

    def __init__(
        self,
        *,
        head_width: int,
        base: float = DEFAULT_BASE,
        network: SirenConfig | None = None,
        pools: bool = True,
    ) -> None:
        """Create the networks.

        Args:
            head_width: Width of a head, even.
            base: Ratio of the slowest to the fastest period of the ordinal part.
            network: Sizes and switches of each network of angles; None for the defaults.
            pools: Whether there is a second network, for the final pooling.

        Raises:
            ValueError: If the width is odd, or its half no multiple of the number of angles.
        """
        super().__init__()
        config = network or SirenConfig()
        ordinal = pair_frequencies(head_width, base=base)
        self.register_buffer("ordinal_frequencies", ordinal, persistent=False)
        pairs = head_width // 2
        outputs = config.num_angles or pairs
        if pairs % outputs:
            raise ValueError(f"{outputs} angles do not divide the {pairs} pairs of a head")
        self._tiles = pairs // outputs
        self.time = TimeFeatures()
        self.networks = nn.ModuleDict(
            {
                name: SirenAngle(inputs=NUM_TIME_FEATURES, outputs=outputs, config=config)
                for name in (["stack", "pooling"] if pools else ["stack"])
            }
        )
        self.frequency = nn.Parameter(torch.full((outputs,), pi))
        self.order_scale = nn.Parameter(torch.ones(()))

    def angles(self, position_BS: Tensor, time_BS: Tensor, *, pooling: bool = False) -> Angles:
        """Return the cosine and sine of each event's angles, [B, 1, S, W / 2], float32.

        Args:
            position_BS: Ordinal positions, all ascending or all descending.
            time_BS: Seconds since 1970, int64; `NO_TIME` where undated, which leaves the ordinal
                part alone.
            pooling: Whether the angles are the final pooling's.

        Raises:
            ValueError: If the times are not whole numbers, or there is no pooling network.
        """
        name = "pooling" if pooling else "stack"
        if name not in self.networks:
            raise ValueError("this rotation has no pooling network; build it with pools=True")
        with torch.autocast(time_BS.device.type, enabled=False):
            features = self.time(time_BS).to(self.frequency.dtype)
            learned = self.networks[name](features) * self.frequency
            learned = learned.masked_fill((time_BS == NO_TIME)[..., None], 0.0)
            learned = learned.repeat_interleave(self._tiles, dim=-1)
            ordinal = position_BS[..., None].float() * self.ordinal_frequencies
            angle = (learned + ordinal * self.order_scale)[:, None]
            return angle.cos(), angle.sin()


def _relu_network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with ReLU between them, as torch starts them."""
    layers = [
        layer for fan_in, out in pairwise(sizes) for layer in (nn.Linear(fan_in, out), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])
