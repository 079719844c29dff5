"""Steps of AdaScale with gradients given by hand, one parameter and one replica."""

from typing import Any

import torch
from torch import Tensor, nn

from ml.training.adascale import AdaScale

# Shapes: S base batches per step, D columns.


def feed(adascale: AdaScale, gradients_SD: Tensor) -> float:
    """Take one step of a single parameter with given gradients of the base batches."""
    (parameter,) = adascale.optimizer.param_groups[0]["params"]
    parameter.grad = gradients_SD.mean(dim=0)
    adascale.begin_step()
    for gradient in gradients_SD:
        adascale.note_batch([gradient])
    return adascale.step([parameter.grad])


def one_parameter(scale: int, *, total: int = 23, **options: Any) -> AdaScale:
    """Return AdaScale of one parameter with the learning rate 0.1 throughout."""
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    return AdaScale(
        torch.optim.SGD([parameter], lr=0.1, **options),
        lambda step: [0.1],
        total_steps=total,
        batches_per_step=scale,
    )
