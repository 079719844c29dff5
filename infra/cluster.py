"""Ray: one instance per process, started on this machine or attached to where it runs already."""

import atexit
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.errors import UserError

# Ray's sockets live under this folder, and a Unix socket's path has at most 107 characters.
_LONGEST_TEMP_DIR = 30
_START_ATTEMPTS = 3
_START_REMEDY = "try again when the machine is less busy, and check the space in /tmp and /dev/shm"
_FLAGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # each look costs the workers some time
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
# A cluster that runs already was started with its own.
_OWN_FLAGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less; there is nothing to preempt
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # 15 by default: a training would yield to everything else
}
_CONNECT_SECONDS = 5.0
# Less than the minute after which Ray ends a process whose head does not answer.
_NETWORK_PATIENCE_SECONDS = 20.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """Say how much of the machine Ray may use, and how long a training may wait for a place.

    Attributes:
        cpus: Processors that Ray counts with.
        cpus_per_worker: What a worker takes of them; a fraction lets workers share one, from one
            on it is also how many threads it computes with. None: see `infra.worker_size`.
        gpus_per_worker: Accelerators that a worker takes, at most one; 0 trains on the processors.
        object_store_bytes: Size of Ray's shared memory; trainings read from disk.
        placement_timeout_seconds: How long to wait for busy processors.
        address: Where a cluster runs already (host:port, or ray://host:port); None starts an
            instance on this machine. Of a cluster that runs, `cpus` is what it has.
    """

    cpus: int = 2
    cpus_per_worker: float | None = None
    gpus_per_worker: int = 0
    object_store_bytes: int = 256 * 2**20
    placement_timeout_seconds: float = 40.0
    address: str | None = None

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        most = self.cpus if self.address is None else math.inf
        each = self.cpus if self.cpus_per_worker is None else self.cpus_per_worker
        if self.cpus < 1 or not 0 < each <= most:
            raise ValueError("cpus must be at least 1 and cpus_per_worker in (0, cpus]")
        if self.gpus_per_worker not in (0, 1):
            raise ValueError("gpus_per_worker must be 0 or 1: a worker computes on one device")
        if self.placement_timeout_seconds <= 0:
            raise ValueError("placement_timeout_seconds must be above 0")


class _Instance:
    """Hold what belongs to the running Ray instance."""

    config: ClusterConfig | None = None
    folder: Path | None = None
    head: tuple[str, int] | None = None


def ray_instance(config: ClusterConfig | None = None) -> ClusterConfig:
    """Start Ray, or attach to the cluster that is named, unless this process has done so.

    At exit an instance of this machine stops; a cluster that ran before goes on.

    Args:
        config: What Ray may use; ignored when an instance runs already.

    Returns:
        The running instance's configuration.

    Raises:
        UserError: If Ray does not start, or there is no cluster at the address.
    """
    if _Instance.config is not None:
        return _Instance.config
    config = config or ClusterConfig()
    os.environ.update(_FLAGS)
    if config.address is not None:
        _Instance.config = _attach(config, config.address)
        atexit.register(stop_ray)
        return _Instance.config
    set_own_flags()
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            _start(config)
            break
        except Exception as error:  # Ray raises a bare Exception when a busy machine is slow
            _log.warning("Ray did not start (attempt %d of %d)", attempt, _START_ATTEMPTS)
            _clear()
            if attempt == _START_ATTEMPTS:
                raise UserError(f"Ray did not start: {error}", remedy=_START_REMEDY) from error
    _Instance.config = config
    atexit.register(stop_ray)
    return config


def set_own_flags() -> None:
    """Set what Ray must find in the environment, when it is imported, to start its own instance."""
    os.environ.update(_FLAGS | _OWN_FLAGS)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(24))


def _start(config: ClusterConfig) -> None:
    import ray

    _Instance.folder = _short_folder()
    ray.init(
        address="local",  # else Ray takes the one that RAY_ADDRESS names
        num_cpus=config.cpus,
        include_dashboard=False,
        object_store_memory=config.object_store_bytes,
        _temp_dir=str(_Instance.folder),
        _node_ip_address="127.0.0.1",
        _system_config={"prestart_worker_first_driver": False},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    # It reads all logs ten times a second for drivers that print them, and no option spares it.
    _node().kill_log_monitor(check_alive=False)


def _attach(config: ClusterConfig, address: str) -> ClusterConfig:
    """Join a cluster that runs already; return the configuration with what the cluster has.

    Raises:
        UserError: If nothing answers there, or it cannot be joined.
    """
    import ray

    remedy = "start a cluster there, or unset RAY_ADDRESS to train on this machine"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"RAY_ADDRESS {address!r} is not host:port", remedy="write it as host:port")
    if not answers((host, int(port))):
        raise UserError(f"no Ray cluster answers at {address}", remedy=remedy)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError and bare Exceptions
        ray.shutdown()
        raise UserError(f"the Ray cluster at {address}: {error}", remedy=remedy) from error
    _Instance.head = (host, int(port))
    return replace(config, cpus=max(1, int(ray.cluster_resources().get("CPU", 1))))


def answers(place: tuple[str, int]) -> bool:
    """Return whether something listens at a host and port."""
    try:
        socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def head_is_alive() -> bool:
    """Return whether what this process's Ray instance is nothing without shows that it lives.

    One look: where the head is across a network, see `head_patience_seconds`.
    """
    if _Instance.head is not None:
        return answers(_Instance.head)
    # No public call answers without a head.
    node = _node()
    processes = {} if node is None else node.all_processes
    return all(
        any(info.process.poll() is None for info in processes.get(kind, []))
        for kind in ("gcs_server", "raylet")
    )


def _node() -> Any:
    """Return what knows the processes of Ray on this machine, None if there are none."""
    import ray

    return ray._private.worker._global_node  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]


def head_patience_seconds() -> float:
    """Return for how long the head must not have answered to count as gone.

    A process of this machine that has ended is gone. Across a network one connection may fail,
    or be late, while the head lives.
    """
    return 0.0 if _Instance.head is None else _NETWORK_PATIENCE_SECONDS


def stop_ray() -> None:
    """Stop this process's Ray instance, if there is one, and remove its folder.

    A cluster that ran before is only left.
    """
    if _Instance.config is not None:
        _clear()
        atexit.unregister(stop_ray)


def _clear() -> None:
    import ray

    ray.shutdown()
    if _Instance.folder is not None:
        shutil.rmtree(_Instance.folder, ignore_errors=True)
    _Instance.config = _Instance.folder = _Instance.head = None


def _short_folder() -> Path:
    root = tempfile.gettempdir()
    if len(root) > _LONGEST_TEMP_DIR or sys.platform == "darwin":
        root = "/tmp"
    return Path(tempfile.mkdtemp(prefix="rl-ray-", dir=root))
