"""What replicas tell each other: sums, extremes and gathered numbers, with or without a group."""

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collectives(Protocol):
    """Exchange tensors between the replicas of one training."""

    @property
    def rank(self) -> int:
        """Return this replica's number, from 0."""
        ...

    @property
    def size(self) -> int:
        """Return the number of replicas."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the replicas, bit-equal on all of them."""
        ...

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise maximum over the replicas."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Return every replica's tensor, stacked by rank."""
        ...


class SingleReplica:
    """Be the only replica."""

    rank = 0
    size = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return a copy."""
        return tensor.clone()

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return a copy."""
        return tensor.clone()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensor with a leading dimension of one."""
        return tensor.clone()[None]


class ProcessGroupReplicas:
    """Use the default process group of torch.distributed."""

    def __init__(self) -> None:
        """Read rank and size of the initialised group."""
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise maximum over the processes."""
        top = tensor.clone()
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
        return top

    def gather(self, tensor: Tensor) -> Tensor:
        """Return every process's tensor, stacked by rank."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)


def current_replicas() -> Collectives:
    """Return the process group if one is initialised, otherwise the single replica."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return ProcessGroupReplicas()
    return SingleReplica()
