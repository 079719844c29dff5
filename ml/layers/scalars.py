"""Scalars that a training may change while it runs, held where the model uses them.

They are no parameters: no gradient reaches them. At their neutral value nothing is computed, so a
model that never changes them gives the same bits as one without them.
"""

from typing import Any

import torch
from torch import Tensor, nn


class AttentionTemperature(nn.Module):
    """Hold the divisor of an attention's scores, beside the square root of the width.

    A model that was trained with another temperature than 1 must be used with it, so the value
    goes with the weights; at 1 it is left out, and weights without it mean 1.
    """

    def __init__(self) -> None:
        """Start at 1, the usual scale."""
        super().__init__()
        self.value = 1.0

    def forward(self, query: Tensor) -> Tensor:
        """Return queries whose scores are divided by the temperature."""
        return query if self.value == 1.0 else query / self.value

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write the value if it is not neutral."""
        if self.value != 1.0:
            destination[f"{prefix}value"] = torch.tensor(self.value, dtype=torch.float64)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *_: Any, **__: Any
    ) -> None:
        """Read the value; without one it is neutral."""
        self.value = float(state_dict.get(f"{prefix}value", 1.0))


class LabelSmoothing(nn.Module):
    """Hold the share of every training label that is spread over all answers.

    Only the training loss reads it: validation, probes and serving know nothing of it.

    Source: Szegedy et al. 2016 (arXiv 1512.00567, section 7).
    """

    def __init__(self) -> None:
        """Start at 0, which leaves labels as they are."""
        super().__init__()
        self.value = 0.0

    def forward(self, labels: Tensor) -> Tensor:
        """Return yes/no labels moved towards one half: (1 - value) x label + value / 2."""
        if not self.value:
            return labels
        return labels * (1 - self.value) + self.value / 2
