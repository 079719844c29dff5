"""Training of a dense model whose weights, gradients and moments are split over the workers.

For a model that does not fit one worker. Each worker keeps a part of every weight with its
gradient and moments; a block's weights are gathered for its forward and backward pass, and
gradients are reduce-scattered. Workers hold parts of one model, so nothing that lets replicas
differ (HDET) or reads a worker's own gradient (AdaScale) can run with it.

Every worker must run the same blocks equally often in the same order, in training and in
validation: each run is an exchange that waits for all. A weight that only some workers use is
fine; a worker with more batches than another waits for ever.

The model is built whole on every worker before it is split, so its bare weights (a quarter of
what AdamW trains with in float32) must fit in the worker's main memory; on a GPU only one block
of them at a time. It runs over gloo; over nccl it is written as FSDP asks for, but has not been
run.

Source: PyTorch FSDP (arXiv 2304.11277); ZeRO stage 3 (arXiv 1910.02054).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ml.training.collectives import ProcessGroupReplicas
from ml.training.norms import TINY_NORM

Result = TypeVar("Result")


class Sharded(nn.Module):
    """Hold a model whose weights are split; whatever needs whole weights goes through `run`.

    It is the root of the sharding, around the model rather than the model itself, because losses
    and validations call other methods than `forward`.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model; use `shard` to get one that is split."""
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Return what a function of the model and more arguments returns."""
        return function(self.model, *arguments)


def shard(model: nn.Module, *, blocks: Sequence[type[nn.Module]] | None = None) -> Sharded:
    """Split a model over the default process group, with the weights of rank 0.

    Make the optimiser afterwards, of the returned module's parameters. On a GPU leave the model
    on the CPU: each block is moved and split in turn. Buffers stay whole on every worker.
    Weights are gathered in float32, whatever autocast then makes of them.

    Args:
        model: The model; its parameters become parts in place, so it is no longer called
            directly.
        blocks: Types of the modules that are gathered one at a time; none named: everything at
            once. By default the entries of module lists that have modules of their own.

    Raises:
        ValueError: If there is no process group, no block, a scalar parameter, or a parameter
            that two blocks, or a block and the rest of the model, share.
    """
    found = repeated_blocks(model, kinds=blocks)
    _check_parameters(model, found)
    if not dist.is_initialized():
        raise ValueError("sharding needs a process group; start the workers with torchrun or Ray")
    kind = "cuda" if "nccl" in dist.get_backend() else "cpu"
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    replicas = ProcessGroupReplicas()
    for tensor in (*model.parameters(), *model.buffers()):
        replicas.broadcast(tensor)
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    sharded = Sharded(model)
    for module in (*found, sharded):
        fully_shard(module, mesh=mesh, mp_policy=policy)
        _sum_gradients(cast("FSDPModule", module))
    return sharded


def repeated_blocks(
    model: nn.Module, *, kinds: Sequence[type[nn.Module]] | None = None
) -> list[nn.Module]:
    """Return the outermost modules that are gathered one at a time, in the model's order.

    Args:
        model: The model.
        kinds: Their types; by default the entries of module lists that have modules of their
            own, which leaves out lists of bare layers.

    Raises:
        ValueError: If there is none, unless no type is named.
    """
    if kinds is None:
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        candidates = [entry for entries in lists for entry in entries if any(entry.children())]
        remedy = "name the types of its blocks"
    else:
        candidates = [m for m in model.modules() if m is not model and isinstance(m, tuple(kinds))]
        remedy = f"it has no {[kind.__name__ for kind in kinds]}"
    inner = {id(part) for block in candidates for part in block.modules() if part is not block}
    found = [
        block
        for block in candidates
        if id(block) not in inner and any(p.requires_grad for p in block.parameters())
    ]
    if not found and (kinds is None or kinds):
        raise ValueError(f"no blocks to shard in {type(model).__name__}: {remedy}")
    return found


def run(model: nn.Module, function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of the model with whole weights; a model that is not sharded is passed on.

    All workers call it together. Without gradients the weights are split again at once; with
    gradients the backward pass does so.

    Args:
        model: What `shard` returned, or any other model.
        function: Takes the bare model and the arguments, such as a job's loss or validation.
        arguments: The other arguments.
    """
    if not isinstance(model, Sharded):
        return function(model, *arguments)
    result = model(function, *arguments)
    if not torch.is_grad_enabled():
        split_again(model)
    return result


def split_again(model: Sharded) -> None:
    """Free whole weights that a pass without a backward pass has left."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def finish_gradients(model: Sharded, total_weight: Tensor, *, clip_norm: float) -> Tensor:
    """Turn summed gradients into the clipped mean, after the backward pass and before the step.

    A trainable parameter without a gradient gets zeros, so that it decays like the others.

    Args:
        model: What `shard` returned; its gradients are the sums over all workers' examples.
        total_weight: Sum of all workers' weights; less than 1 counts as 1.
        clip_norm: Largest norm of the mean gradient.

    Returns:
        The norm of the mean before it is clipped, equal on all workers.
    """
    parts = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parts.append(cast("DTensor", parameter.grad).to_local())
    squares = torch.nn.utils.get_total_norm(parts).double().square()
    dist.all_reduce(squares)
    weight = total_weight.to(squares).clamp(min=1)
    norm = squares.sqrt() / weight
    factor = (clip_norm / (norm + TINY_NORM)).clamp(max=1.0) / weight
    for part in parts:
        part.mul_(factor.to(part.dtype))
    return norm.float()


def _sum_gradients(module: FSDPModule) -> None:
    """Let workers add their gradients, with zeros for what one of them did not use."""
    module.set_gradient_divide_factor(1.0)
    # gloo has no operation that multiplies while it adds; a plain sum is exact on every backend.
    module.set_force_sum_reduction_for_comms(True)
    module.set_reduce_scatter_unused_params(True, recurse=False)


def _check_parameters(model: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Refuse scalars, and parameters that would belong to two groups.

    Raises:
        ValueError: Naming the parameter.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise ValueError(f"a scalar cannot be sharded: give parameter {name} one dimension")
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for block in blocks:
        inside = Counter(
            id(parameter)
            for module in block.modules()
            for parameter in module.parameters(recurse=False)
        )
        for name, parameter in block.named_parameters():
            if uses[id(parameter)] != inside[id(parameter)]:
                raise ValueError(
                    f"{name} of a {type(block).__name__} is shared with a module outside of it: "
                    "untie it, or leave that type out of the blocks"
                )
