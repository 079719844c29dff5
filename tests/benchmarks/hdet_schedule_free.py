"""AdamW without a schedule: gradients at a point between the iterate and its running average."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """Keep an iterate z, its average x, and train at y = (1 - beta1) z + beta1 x.

    Parameters hold y while training; `use_average` puts x in their place. Step t moves z by
    rate_t = lr x sqrt(1 - beta2^t) x min(1, t / warm-up), the average's weight of a step is
    rate_t^2 over the sum of all squares so far, and the decay is taken at y.

    Source: Defazio et al. 2024, arXiv 2405.15682, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup_steps: int = 0,
    ) -> None:
        """Take parameters or groups; a group's `weight_decay` is 0 unless it says otherwise.

        Args:
            params: Parameters or groups of them.
            lr: Rate after the warm-up.
            betas: Share of the average in y, and decay of the squared gradient.
            eps: Floor of the root.
            warmup_steps: Steps in which the rate rises in a line.
        """
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self._betas, self._eps, self._warmup_steps = betas, eps, warmup_steps
        self._steps, self._squares = 0, 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move z by the gradient at y, then the average, then y.

        Raises:
            ValueError: If a closure is given.
        """
        if closure is not None:
            raise ValueError("this optimiser takes no closure: call backward before step")
        self._steps += 1
        beta1, beta2 = self._betas
        warm = min(1.0, self._steps / self._warmup_steps) if self._warmup_steps else 1.0
        scale = warm * (1 - beta2**self._steps) ** 0.5
        first = self.param_groups[0]["lr"] * scale
        self._squares += first**2
        share = first**2 / self._squares
        for group in self.param_groups:
            rate = group["lr"] * scale
            for y in group["params"]:
                if y.grad is None:
                    continue
                state = self._state_of(y)
                state["square"].mul_(beta2).addcmul_(y.grad, y.grad, value=1 - beta2)
                move = y.grad / (state["square"].sqrt() + self._eps)
                move.add_(y, alpha=group["weight_decay"])
                state["z"].sub_(move, alpha=rate)
                state["x"].lerp_(state["z"], share)
                y.copy_(torch.lerp(state["z"], state["x"], beta1))
        return None

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the average into the parameters, for good: train no further."""
        for group in self.param_groups:
            for y in group["params"]:
                if y in self.state:
                    y.copy_(self.state[y]["x"])

    def _state_of(self, y: Tensor) -> dict[str, Tensor]:
        state = self.state[y]
        if not state:
            state |= {"z": y.clone(), "x": y.clone(), "square": torch.zeros_like(y)}
        return state
