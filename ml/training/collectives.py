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

    def broadcast(self, tensor: Tensor) -> None:
        """Give a tensor the values of replica 0's, in place."""
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

    def broadcast(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""


class ProcessGroupReplicas:
    """Use the default process group of torch.distributed."""

    def __init__(self) -> None:
        """Read rank and size of the initialised group."""
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        # nccl carries what is on a GPU only.
        is_gpu = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if is_gpu else None

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes."""
        total = self._carried(tensor)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise maximum over the processes."""
        top = self._carried(tensor)
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
        return top.to(tensor.device)

    def gather(self, tensor: Tensor) -> Tensor:
        """Return every process's tensor, stacked by rank."""
        own = self._carried(tensor).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        return torch.stack(parts).to(tensor.device)

    def broadcast(self, tensor: Tensor) -> None:
        """Give a tensor the values of process 0's, in place."""
        own = tensor.detach()
        sent = own.to(self._device or own.device).contiguous()
        dist.broadcast(sent, src=0)
        if sent is not own:
            own.copy_(sent)

    def _carried(self, tensor: Tensor) -> Tensor:
        """Return a copy on a device that the group carries."""
        return tensor.clone() if self._device is None else tensor.to(self._device, copy=True)


def validators(replicas: Collectives, *, sharding: str) -> Collectives:
    """Return among whom a validation is divided.

    Workers that hold parts of one model must run it equally often, so each of them then scores
    the whole split.

    Args:
        replicas: The replicas of the training.
        sharding: As in TrainConfig.
    """
    return SingleReplica() if sharding == "full" else replicas


def current_replicas() -> Collectives:
    """Return the process group if one is initialised, otherwise the single replica."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return ProcessGroupReplicas()
    return SingleReplica()
