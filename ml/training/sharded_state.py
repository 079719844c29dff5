"""Whole weights and optimiser state of a sharded training, in the form a plain one has.

A checkpoint of N workers so loads into one process without sharding, into M workers, and back.
All workers take part in every exchange; only rank 0 holds whole tensors, on the CPU and one
tensor at a time on its way there. Rank 0 needs main memory for the weights and their moments.

`torch.distributed.checkpoint.state_dict` has the like, and does not fit: from rank 0 it hands over
parameters and buffers only, so what a module adds to its state by itself (such as
`ml.layers.scalars.AttentionTemperature`) would be restored on rank 0 alone; what it refuses, it
refuses there while the others wait; and its optimiser states are by name, ours by place.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ml.training.fully_sharded import Sharded, split_again

FullState = tuple[dict[str, Tensor], dict[str, Any]]


def full_state(model: Sharded, optimizer: Optimizer) -> FullState | None:
    """Gather a sharded training's state; all workers call it.

    Args:
        model: What `shard` returned.
        optimizer: Of its parameters.

    Returns:
        On rank 0 what `state_dict()` of the bare model and of its optimiser would give without
        sharding, as `save_checkpoint` takes it; None on the others.
    """
    split_again(model)
    weights = {name: _whole(tensor) for name, tensor in model.model.state_dict().items()}
    plain = optimizer.state_dict()
    states = {
        index: {name: _whole(value) for name, value in values.items()}
        for index, values in plain["state"].items()
    }
    if dist.get_rank() != 0:
        return None
    return cast("dict[str, Tensor]", weights), {**plain, "state": states}


def load_full_state(model: Sharded, optimizer: Optimizer, state: FullState | None) -> None:
    """Give every worker its part of a whole state; all workers call it.

    Args:
        model: What `shard` returned.
        optimizer: Of its parameters.
        state: On rank 0 weights and optimiser state of a plain or a sharded training of this
            model; ignored on the others.

    Raises:
        RuntimeError: If a weight is missing, unexpected or of another shape, or the optimiser
            has other parameters; on all workers.
    """
    split_again(model)
    weights, moments = state if state is not None else ({}, {"state": {}, "param_groups": []})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plan = _agreed(
        {
            "wrong": _differences(moments, parameters),
            "weights": _forms(weights),
            "moments": {index: _forms(values) for index, values in moments["state"].items()},
            "groups": moments["param_groups"],
        }
    )
    if plan["wrong"]:
        raise RuntimeError("the state is of another optimiser: " + "; ".join(plan["wrong"]))
    own = model.model.state_dict()
    device = parameters[0].device
    parts = {
        name: _part(weights.get(name), form, like=own.get(name, torch.empty((), device=device)))
        for name, form in plan["weights"].items()
    }
    model.model.load_state_dict(parts, strict=True)
    states = {
        index: {
            name: _part(moments["state"].get(index, {}).get(name), form, like=parameters[index])
            for name, form in forms.items()
        }
        for index, forms in plan["moments"].items()
    }
    optimizer.load_state_dict({"state": states, "param_groups": plan["groups"]})


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _whole(tensor: Tensor) -> Tensor | None:
    """Return the whole tensor on rank 0's CPU; None on the others, which help to gather it."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().to("cpu", copy=True) if dist.get_rank() == 0 else None


def _part(whole: Tensor | None, form: tuple[torch.Size, torch.dtype], *, like: Tensor) -> Tensor:
    """Return this worker's part of rank 0's tensor.

    Args:
        whole: The tensor on rank 0.
        form: Its shape and type.
        like: On whose device the result shall be, and split as it if that has this shape.
    """
    shape, dtype = form
    sent = torch.empty(shape, dtype=dtype, device=like.device)
    if dist.get_rank() == 0:
        assert whole is not None
        sent.copy_(whole)
    if isinstance(like, DTensor) and like.shape == shape:
        return distribute_tensor(sent, like.device_mesh, like.placements)
    dist.broadcast(sent, src=0)
    return sent


def _differences(moments: Mapping[str, Any], parameters: list[Tensor]) -> list[str]:
    """Return what does not fit of an optimiser's state; read on rank 0 only."""
    count = sum(len(group["params"]) for group in moments["param_groups"])
    if count != len(parameters):
        return [f"it has {count} parameters, not {len(parameters)}"]
    # A moment is of its parameter's shape, or one number such as a count of steps.
    return [
        f"{name} of parameter {index} is {list(value.shape)}, not {list(parameters[index].shape)}"
        for index, values in moments["state"].items()
        for name, value in values.items()
        if value.shape not in (parameters[index].shape, torch.Size())
    ]


def _agreed(plan: dict[str, Any]) -> dict[str, Any]:
    """Return rank 0's plan."""
    box = [plan]
    dist.broadcast_object_list(box, src=0)
    return box[0]
