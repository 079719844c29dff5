"""Experts with replicas and int8 weights, in place of a transformers `experts` module.

The router is untouched. Token number t of expert j (in batch order, counted anew in every batch)
goes to instance t mod r_j of that expert: an even split that depends on the batch alone. Int8
weights are symmetric with one scale per output channel and are turned back into full precision
just before the product, which is the reference a fused kernel would have to match.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ml.inference.expert_plan import ExpertSize, LayerPlan

if TYPE_CHECKING:
    from ml.inference.moe_blocks import StackedExperts

# Shapes: T tokens, K experts per token, D width, I expert width, M experts, N instances,
# F full-precision instances, Q quantised instances, O output and C input channels of a matrix.

_INT8_LARGEST = 127


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """Hold int8 values and one scale per output channel."""

    values: Tensor
    scales: Tensor


def quantise(weight_OC: Tensor) -> QuantisedMatrix:
    """Quantise a matrix to int8, symmetric per output channel (second to last axis).

    Args:
        weight_OC: Weights [..., O, C].

    Returns:
        values int8 [..., O, C] and scales float32 [..., O, 1]; a row of zeros has scale 1.

    Source: Dettmers et al. 2022 (arXiv 2208.07339), vector-wise absmax quantisation.
    """
    largest = weight_OC.float().abs().amax(dim=-1, keepdim=True)
    scales = torch.where(largest > 0, largest / _INT8_LARGEST, torch.ones_like(largest))
    values = (weight_OC.float() / scales).round().clamp(-_INT8_LARGEST, _INT8_LARGEST)
    return QuantisedMatrix(values=values.to(torch.int8), scales=scales)


def dequantise(matrix: QuantisedMatrix, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the full-precision matrix of int8 values and their scales."""
    return (matrix.values.float() * matrix.scales).to(dtype)


def expert_size(experts: nn.Module) -> ExpertSize:
    """Return the bytes of one expert, as it is and as int8 with float32 scales."""
    stacked = cast("StackedExperts", experts)
    matrices = (stacked.gate_up_proj[0], stacked.down_proj[0])
    return ExpertSize(
        full_bytes=sum(matrix.numel() * matrix.element_size() for matrix in matrices),
        quantised_bytes=sum(matrix.numel() + 4 * matrix.shape[0] for matrix in matrices),
    )


def instance_of_slot(chosen_TK: Tensor, replicas_M: Tensor) -> Tensor:
    """Assign each (token, expert) slot to an instance of its expert, in turn.

    Args:
        chosen_TK: Expert of each slot.
        replicas_M: Instances of each expert; those of expert 0 come first, and so on.

    Returns:
        Instance number of each slot, flattened token by token, int64.
    """
    expert_S = chosen_TK.reshape(-1)
    order_S = torch.argsort(expert_S, stable=True)
    counts_M = torch.bincount(expert_S, minlength=len(replicas_M))
    starts_M = counts_M.cumsum(0) - counts_M
    turn_S = torch.empty_like(expert_S)
    places_S = torch.arange(len(expert_S), device=expert_S.device)
    turn_S[order_S] = places_S - starts_M[expert_S[order_S]]
    first_M = replicas_M.cumsum(0) - replicas_M
    return first_M[expert_S] + turn_S % replicas_M[expert_S]


class BalancedExperts(nn.Module):
    """Run a layer's experts by a plan; drop-in for the `experts` module it was made from.

    Buffers: `replicas` int64 [M]; `slot` int64 [N], the place of each instance's weights;
    `is_quantised` bool [N]; full weights `gate_up` [F, 2I, D] and `down` [F, D, I]; int8 weights
    `gate_up_int8` and `down_int8` with float32 scales.
    """

    replicas: Tensor
    slot: Tensor
    is_quantised: Tensor

    def __init__(self, experts: nn.Module, plan: LayerPlan, *, lossless: bool = False) -> None:
        """Copy the experts' weights as the plan says.

        Args:
            experts: Module with stacked `gate_up_proj` [M, 2I, D] and `down_proj` [M, D, I].
            plan: Replicas and quantised originals.
            lossless: Keep full precision where the plan says int8, to check the dispatch; this
                breaks the memory promise.

        Raises:
            ValueError: If the plan is for another number of experts.
        """
        super().__init__()
        stacked = cast("StackedExperts", experts)
        gate_up, down = stacked.gate_up_proj.detach(), stacked.down_proj.detach()
        if len(plan.replicas) != len(gate_up):
            raise ValueError(f"plan of {len(plan.replicas)} experts for {len(gate_up)} experts")
        self.act_fn = stacked.act_fn
        self.plan = plan
        expert_N, quantised_N = _instances(plan)
        is_quantised = torch.zeros_like(quantised_N) if lossless else quantised_N
        full, packed = expert_N[~is_quantised], expert_N[is_quantised]
        slot = torch.where(is_quantised, is_quantised.cumsum(0), (~is_quantised).cumsum(0)) - 1
        self.register_buffer("replicas", torch.tensor(plan.replicas))
        self.register_buffer("slot", slot)
        self.register_buffer("is_quantised", is_quantised)
        self._register_weights("gate_up", gate_up[full].clone(), quantise(gate_up[packed]))
        self._register_weights("down", down[full].clone(), quantise(down[packed]))

    def _register_weights(self, name: str, full: Tensor, packed: QuantisedMatrix) -> None:
        self.register_buffer(name, full)
        self.register_buffer(f"{name}_int8", packed.values)
        self.register_buffer(f"{name}_scale", packed.scales)

    @property
    def num_instances(self) -> int:
        """Return the number of expert instances, replicas included."""
        return len(self.slot)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all weights and scales."""
        names = (
            "gate_up",
            "gate_up_int8",
            "gate_up_scale",
            "down",
            "down_int8",
            "down_scale",
        )
        tensors = [getattr(self, name) for name in names]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def forward(self, hidden_TD: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """Mix the chosen experts' outputs.

        Args:
            hidden_TD: Tokens.
            chosen_TK: Experts the router chose.
            weights_TK: Their weights.

        Returns:
            mixed_TD, in the type of the input.
        """
        num_chosen = chosen_TK.shape[-1]
        instance_S = instance_of_slot(chosen_TK, self.replicas)
        order_S = torch.argsort(instance_S, stable=True)
        sizes = torch.bincount(instance_S, minlength=self.num_instances).tolist()
        groups = (hidden_TD[order_S // num_chosen]).split(sizes)
        outputs = [
            self._run(instance, rows) if len(rows) else rows for instance, rows in enumerate(groups)
        ]
        weighted_SD = torch.cat(outputs) * weights_TK.reshape(-1)[order_S, None]
        restored_SD = torch.empty_like(weighted_SD)
        restored_SD[order_S] = weighted_SD
        return restored_SD.view(-1, num_chosen, hidden_TD.shape[-1]).sum(1).to(hidden_TD.dtype)

    def _run(self, instance: int, rows: Tensor) -> Tensor:
        gate, up = nn.functional.linear(rows, self._weight("gate_up", instance)).chunk(2, dim=-1)
        return nn.functional.linear(self.act_fn(gate) * up, self._weight("down", instance))

    def _weight(self, name: str, instance: int) -> Tensor:
        slot, full = int(self.slot[instance]), getattr(self, name)
        if not self.is_quantised[instance]:
            return full[slot]
        values = getattr(self, f"{name}_int8")[slot]
        scales = getattr(self, f"{name}_scale")[slot]
        return dequantise(QuantisedMatrix(values, scales), full.dtype)


def _instances(plan: LayerPlan) -> tuple[Tensor, Tensor]:
    """Return the expert of each instance and whether the plan quantises it."""
    experts, quantised = [], []
    for expert, copies in enumerate(plan.replicas):
        experts += [expert] * copies
        quantised += [expert in plan.quantised] + [True] * (copies - 1)
    return torch.tensor(experts), torch.tensor(quantised)
