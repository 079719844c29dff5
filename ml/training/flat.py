"""Many tensors as one, so that replicas exchange one message."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the elements of all tensors in one flat copy."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def unpack_into(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the elements of a flat tensor back into the tensors, in `pack`'s order."""
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            stop = start + tensor.numel()
            tensor.copy_(flat[start:stop].view_as(tensor))
            start = stop
