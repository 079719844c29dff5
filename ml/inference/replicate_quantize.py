"""Replicate-and-Quantize: even out the expert load of a trained model without more memory.

Calibrate on a sample of traffic, replicate the most loaded expert of each layer as int8, and pay
for it by quantising the least important ones. No training, and the router stays as it is.

Source: Replicate-and-Quantize (training-free load balancing of sparse experts), our own build.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from ml.inference.balanced_experts import BalancedExperts, expert_size
from ml.inference.expert_plan import ExpertSize, Plan, PlanConfig, make_plan
from ml.inference.expert_statistics import Batch, count_tokens, wanda_importance
from ml.inference.load_imbalance import ImbalanceReport, imbalance_report
from ml.inference.moe_blocks import sparse_blocks

# Shapes: B batches, L layers, M experts.

_Model = TypeVar("_Model", bound=nn.Module)

_WEIGHTS, _PLAN = "experts.safetensors", "plan.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Hold what the calibration saw.

    Attributes:
        counts: Tokens of each expert.
        importance: Importance of each expert, `wanda`.
        size: Bytes of one expert.
    """

    counts: NDArray[np.int64]
    importance: NDArray[np.float64]
    size: ExpertSize


def sample_batches(batches: Sequence[Batch], *, fraction: float, seed: int = 0) -> list[Batch]:
    """Draw a share of the batches, at least one, in their order.

    Raises:
        ValueError: If the share is not in (0, 1] or there is no batch.
    """
    if not 0 < fraction <= 1 or not batches:
        raise ValueError(f"need batches and a share in (0, 1], got {len(batches)} and {fraction}")
    size = max(1, round(fraction * len(batches)))
    chosen = np.random.default_rng(seed).choice(len(batches), size=size, replace=False)
    return [batches[index] for index in sorted(chosen)]


def calibrate(model: nn.Module, batches: Sequence[Batch]) -> Calibration:
    """Measure loads and importances on calibration batches.

    Args:
        model: The trained model, unmodified; called as `model(batch)`.
        batches: About a tenth of the traffic is enough.
    """
    return Calibration(
        counts=count_tokens(model, batches).sum(axis=0),
        importance=wanda_importance(model, batches),
        size=expert_size(sparse_blocks(model)[0].experts),
    )


def plan_model(calibration: Calibration, *, config: PlanConfig | None = None) -> Plan:
    """Plan every layer from a calibration; the same calibration gives the same plan."""
    return make_plan(
        calibration.counts,
        calibration.importance,
        size=calibration.size,
        config=config,
    )


def apply_plan(model: _Model, plan: Plan, *, lossless: bool = False) -> _Model:
    """Return a copy of a model that runs by the plan; the model itself is left alone.

    Args:
        model: The trained model.
        plan: One entry per sparse layer.
        lossless: See `BalancedExperts`.

    Raises:
        ValueError: If the plan has another number of layers, or the model is balanced already.
    """
    balanced = deepcopy(model).eval()
    blocks = sparse_blocks(balanced)
    if len(blocks) != len(plan.layers):
        raise ValueError(f"plan of {len(plan.layers)} layers for {len(blocks)} sparse layers")
    if any(isinstance(block.experts, BalancedExperts) for block in blocks):
        raise ValueError("the model is balanced already; apply plans to the original")
    for block, layer in zip(blocks, plan.layers, strict=True):
        block.experts = BalancedExperts(block.experts, layer, lossless=lossless)
    return balanced


def expert_bytes(model: nn.Module) -> int:
    """Return the bytes of all routed experts' weights and scales."""
    total = 0
    for block in sparse_blocks(model):
        experts = block.experts
        if isinstance(experts, BalancedExperts):
            total += experts.num_bytes
        else:
            total += sum(p.numel() * p.element_size() for p in experts.parameters())
    return total


def measure_imbalance(model: nn.Module, batches: Sequence[Batch]) -> ImbalanceReport:
    """Score the imbalance of a model, balanced or not, by its own routers on some traffic."""
    replicas = [
        block.experts.plan.replicas if isinstance(block.experts, BalancedExperts) else None
        for block in sparse_blocks(model)
    ]
    counts = count_tokens(model, batches)
    copies = None if replicas[0] is None else cast("list[tuple[int, ...]]", replicas)
    return imbalance_report(counts, replicas_LM=copies)


def save_balanced(model: nn.Module, folder: Path) -> None:
    """Write the experts of a balanced model and its plan; the rest is the original's.

    Raises:
        ValueError: If the model is not balanced.
    """
    blocks = sparse_blocks(model)
    layers = [block.experts for block in blocks if isinstance(block.experts, BalancedExperts)]
    if len(layers) != len(blocks):
        raise ValueError("the model is not balanced; apply a plan first")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{layer}.{name}": tensor.contiguous()
        for layer, experts in enumerate(layers)
        for name, tensor in experts.state_dict().items()
    }
    save_file(tensors, folder / _WEIGHTS)
    plan = Plan(layers=tuple(experts.plan for experts in layers))
    (folder / _PLAN).write_text(plan.to_json())


def load_balanced(model: _Model, folder: Path) -> _Model:
    """Return a copy of the original model with the balanced experts of a folder.

    Raises:
        ValueError: If a stored tensor does not fit the model, is missing or would go unused.
    """
    plan = Plan.from_json((folder / _PLAN).read_text())
    balanced = apply_plan(model, plan)
    tensors = load_file(folder / _WEIGHTS)
    expected = {
        f"{layer}.{name}": tensor
        for layer, block in enumerate(sparse_blocks(balanced))
        for name, tensor in block.experts.state_dict().items()
    }
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: list(tensor.shape) for name, tensor in expected.items()}:
        raise ValueError(f"experts in {folder} do not fit the model; plan it again")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])
    return balanced


def calibration_json(calibration: Calibration) -> str:
    """Return a calibration as JSON, for the record beside a plan."""
    return json.dumps(
        {
            "counts": calibration.counts.tolist(),
            "importance": calibration.importance.tolist(),
            "full_bytes": calibration.size.full_bytes,
            "quantised_bytes": calibration.size.quantised_bytes,
        }
    )
