"""Whole weights and optimiser state of a sharded training, in the form a plain one has.

A checkpoint of N workers so loads into one process without sharding, into M workers, and back.
All workers take part in every exchange; only rank 0 holds whole tensors, on the CPU and one
tensor at a time on its way there. Rank 0 needs main memory for the weights and their moments.
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
    own = model.model.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plan = _agreed(
        {
            "wrong": _differences(weights, own, moments, parameters),
            "moments": {
                index: {name: (value.shape, value.dtype) for name, value in values.items()}
                for index, values in moments["state"].items()
            },
            "groups": moments["param_groups"],
        }
    )
    if plan["wrong"]:
        raise RuntimeError("the state is of another model: " + "; ".join(plan["wrong"]))
    with torch.no_grad():
        for name, target in own.items():
            target.copy_(_part(weights.get(name), like=target, shape=target.shape))
    states = {
        index: {
            name: _part(
                moments["state"].get(index, {}).get(name),
                like=_place(parameters[index], shape, dtype),
                shape=shape,
            )
            for name, (shape, dtype) in values.items()
        }
        for index, values in plan["moments"].items()
    }
    optimizer.load_state_dict({"state": states, "param_groups": plan["groups"]})


def _whole(tensor: Tensor) -> Tensor | None:
    """Return the whole tensor on rank 0's CPU; None on the others, which help to gather it."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().to("cpu", copy=True) if dist.get_rank() == 0 else None


def _part(whole: Tensor | None, *, like: Tensor, shape: torch.Size) -> Tensor:
    """Return this worker's part of rank 0's tensor, split, placed and typed like another.

    Args:
        whole: The tensor on rank 0.
        like: A tensor of the wanted type and place, split if the result shall be.
        shape: Shape of the whole tensor.
    """
    sent = torch.empty(shape, dtype=like.dtype, device=like.device)
    if dist.get_rank() == 0:
        assert whole is not None
        sent.copy_(whole)
    if isinstance(like, DTensor):
        return distribute_tensor(sent, like.device_mesh, like.placements)
    dist.broadcast(sent, src=0)
    return sent


def _place(parameter: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return what a moment shall be like: its parameter, or a whole tensor such as a step count."""
    if shape == parameter.shape:
        return parameter
    return torch.empty((), dtype=dtype, device=parameter.device)


def _differences(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    moments: Mapping[str, Any],
    parameters: list[Tensor],
) -> list[str]:
    """Return what does not fit of a state that is to be loaded; read on rank 0 only."""
    wrong = [f"{name} is missing" for name in own if name not in weights]
    for name, tensor in weights.items():
        if name not in own:
            wrong.append(f"{name} is unexpected")
        elif tensor.shape != own[name].shape:
            wrong.append(f"{name} is {list(tensor.shape)}, not {list(own[name].shape)}")
    count = sum(len(group["params"]) for group in moments["param_groups"])
    if count != len(parameters):
        wrong.append(f"its optimiser has {count} parameters, not {len(parameters)}")
    return wrong


def _agreed(plan: dict[str, Any]) -> dict[str, Any]:
    """Return rank 0's plan."""
    box = [plan]
    dist.broadcast_object_list(box, src=0)
    return box[0]
