"""Ray Train's process group of torch, without torch where no process group is.

Ray's own `TorchConfig` makes the controller import torch before it may place a worker: more
than half of what it does until then, and most of its memory. What the workers do is Ray's.
"""

import logging
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.util import TrainingFramework

_LEAVE_SECONDS = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupConfig(BackendConfig):
    """Let the workers join one process group.

    Attributes:
        backend: "gloo" or "nccl".
    """

    backend: str

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what the controller does for it."""
        return GroupBackend

    @property
    def train_func_context(self) -> Any:
        """Return what a worker's function runs in."""
        return OwnDevice

    @property
    def framework(self) -> Any:
        """Return what is trained with."""
        return TrainingFramework.TORCH

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {"backend": self.backend}


class GroupBackend(Backend):
    """Tell the workers, from the controller, to join their group and to leave it."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Let all workers meet at rank 0."""
        assert isinstance(backend_config, GroupConfig)
        address, port = worker_group.execute_single(0, get_address_and_port)
        size = len(worker_group)
        joined = [
            worker_group.execute_single_async(
                rank,
                _join,
                backend=backend_config.backend,
                place=(address, port),
                number=rank,
                size=size,
            )
            for rank in range(size)
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Let all workers leave, or go on without the ones that do not answer."""
        left = worker_group.execute_async(_leave, is_shared=len(worker_group) > 1)
        try:
            ray.get(left, timeout=_LEAVE_SECONDS)
        except GetTimeoutError:
            _log.warning("workers did not leave their process group in %g s", _LEAVE_SECONDS)


class OwnDevice:
    """Make a worker's accelerator, if it has one, torch's current one."""

    def __enter__(self) -> None:
        """Choose it."""
        import torch
        from ray.train.torch import get_device

        if torch.cuda.is_available() and (device := get_device()).type == "cuda":
            torch.cuda.set_device(device)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Let errors pass."""
        return False


def _join(*, backend: str, place: tuple[str, int], number: int, size: int) -> None:
    from ray.train.torch import config

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place[0], str(place[1])
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(
        backend=backend, world_rank=number, world_size=size, init_method="env://"
    )


def _leave(*, is_shared: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=is_shared)
