"""An isotonic calibration layer: a learned, never falling map of a logit, piecewise linear.

The logits' range [L, U] is cut into buckets of one step; each bucket has a slope that is not
negative, and a logit's image is the sum of the slopes below it. A context (a position, a
platform) can have slopes of its own. The order of logits within one context is kept, up to ties
where a slope is 0 and to rounding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

# Shapes: ... any leading shape, A actions, C contexts, N buckets.
_UNIT_SOFTPLUS = math.log(math.e - 1)  # softplus of it is 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IsotonicConfig:
    """Say which logits are told apart, and how slopes stay above zero.

    Attributes:
        low: Lower end L of the range; smaller logits are clipped to it.
        high: Upper end U of the range; larger logits are clipped to it.
        step: Width of a bucket.
        slope: "softplus", or "relu" as published, whose buckets stop learning once negative.
    """

    low: float = -17.0
    high: float = 8.0
    step: float = 0.05
    slope: str = "softplus"

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the range is empty or the slope's kind is unknown.
        """
        if not self.step > 0 or self.high - self.low < self.step:
            raise ValueError(f"a range from {self.low} to {self.high} holds no step of {self.step}")
        if self.slope not in ("softplus", "relu"):
            raise ValueError(f'slope must be "softplus" or "relu", got {self.slope!r}')

    @property
    def num_buckets(self) -> int:
        """Return the number of buckets; the first one ends at L."""
        return round((self.high - self.low) / self.step) + 1


class IsotonicLayer(nn.Module):
    """Calibrate logits by learned slopes; at first the identity on [L, U], exactly.

    With s the clipped logit's distance from L - step, i its bucket, and a the slopes, the image
    is step * (a_0 + ... + a_(i-1)) + a_i * (s - i * step) + L - step + b. It is computed as the
    clipped logit plus the same sums over a - 1, in a number of steps that does not depend on the
    buckets: slopes of 1 then add exact zeros. The gradient that reaches the logit is a_i.

    Prefix sums are taken over the whole table of C contexts, so contexts should be few
    (positions by platforms), not ids of members or items.

    Source: lirank 5.4 (arXiv 2402.06859, equation 1, and the isotonic-layer follow-up).
    """

    def __init__(
        self, actions: int, *, contexts: int = 1, config: IsotonicConfig = IsotonicConfig()
    ) -> None:
        """Create slopes of 1 and offsets of 0.

        Args:
            actions: Number of logits per row, each with its own map.
            contexts: Number of contexts, each with its own maps; 1 if there is no context.
            config: Range and kind of slopes.
        """
        super().__init__()
        self._config, self._actions, self._contexts = config, actions, contexts
        first = 0.0 if config.slope == "softplus" else 1.0
        self.raw_CAN = nn.Parameter(torch.full((contexts, actions, config.num_buckets), first))
        self.bias_CA = nn.Parameter(torch.zeros(contexts, actions))

    def forward(self, logits_A: Tensor, context: Tensor | None = None) -> Tensor:
        """Return calibrated logits, [..., A], in float32 or wider.

        Args:
            logits_A: Logits [..., A].
            context: Integer context of each row, [...]; None if there is only one.

        Raises:
            ValueError: If the actions differ, or the context is missing or not needed.
        """
        if logits_A.shape[-1] != self._actions:
            raise ValueError(f"got {logits_A.shape[-1]} logits per row, not {self._actions}")
        if (context is None) != (self._contexts == 1):
            raise ValueError(f"the layer has {self._contexts} contexts; give one per row if many")
        config = self._config
        logits_A = logits_A.to(torch.promote_types(logits_A.dtype, self.raw_CAN.dtype))
        logits_A = logits_A.clamp(config.low, config.high)
        distance_A = (logits_A.detach() - config.low + config.step) / config.step
        bucket_A = distance_A.floor().clamp(0, config.num_buckets - 1)
        within_A = logits_A - config.low + config.step - bucket_A * config.step
        row_A = self._row(bucket_A.long(), context)
        excess_CAN = self.slopes() - 1
        below_CAN = excess_CAN.cumsum(dim=-1) - excess_CAN
        added_A = config.step * below_CAN.flatten()[row_A] + excess_CAN.flatten()[row_A] * within_A
        bias_A = self.bias_CA[0] if context is None else self.bias_CA[context]
        return logits_A + added_A + bias_A

    def slopes(self) -> Tensor:
        """Return the slopes of all buckets, [C, A, N], none below 0."""
        if self._config.slope == "relu":
            return relu(self.raw_CAN)
        unit = torch.full_like(self.raw_CAN[:1, :1, :1], _UNIT_SOFTPLUS)
        return softplus(self.raw_CAN + unit) / softplus(unit)  # a quotient of equals is exactly 1

    def _row(self, bucket_A: Tensor, context: Tensor | None) -> Tensor:
        """Return the place of each logit's bucket in the flat table, [..., A]."""
        action_A = torch.arange(self._actions, device=bucket_A.device)
        map_A = (
            action_A if context is None else context.long()[..., None] * self._actions + action_A
        )
        return map_A * self._config.num_buckets + bucket_A
