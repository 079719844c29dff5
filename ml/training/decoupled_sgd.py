"""SGD whose weight decay is a step of its own, as AdamW's is.

    w <- w (1 - lr decay)
    v <- momentum v + g
    w <- w - lr v

torch's SGD adds decay times w to the gradient instead: after the gradient was clipped, and into the
momentum, which makes it 1 / (1 - momentum) times as strong. With a learning rate near 1 that pulls
harder than any clipped gradient.

Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 1 (SGDW).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch.optim import SGD


class DecoupledSGD(SGD):
    """Step as torch's SGD, and shrink what has a gradient by lr x weight_decay of its group.

    The groups show their decay as every optimiser's do, and may be changed between steps.
    """

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Decay, then take the step.

        Args:
            closure: Computes loss and gradients again, as torch's optimisers take it.

        Returns:
            The closure's loss, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _decay(group)
        with _without_decay(self.param_groups):
            super().step()
        return loss


@torch.no_grad()
def _decay(group: dict[str, Any]) -> None:
    """Shrink the parameters of a group; those without a gradient stay, as they do in AdamW."""
    if not group["weight_decay"]:
        return
    if moved := [parameter for parameter in group["params"] if parameter.grad is not None]:
        factor = 1 - group["lr"] * group["weight_decay"]
        torch._foreach_mul_(moved, factor)  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def _without_decay(groups: list[dict[str, Any]]) -> Iterator[None]:
    """Let torch's SGD see groups without a decay for a while."""
    decays = [group["weight_decay"] for group in groups]
    try:
        for group in groups:
            group["weight_decay"] = 0.0
        yield
    finally:
        for group, decay in zip(groups, decays, strict=True):
            group["weight_decay"] = decay
