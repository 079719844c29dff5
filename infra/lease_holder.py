"""Who holds a lease, and whether it has provably ended.

A process is known by its number and the moment at which it began, in the kernel's own ticks, on one
boot of one machine and in one space of process numbers. Seen from anywhere else nothing about it
can be proven, and it counts as running. A driver has ended when neither its Python nor its JVM runs
any more; what a Spark Connect server does is not seen from here at all.
"""

import os
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.commit_lock import is_remote

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PROC = Path("/proc")
_DEAD = ("Z", "X")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessId:
    """Name one process for good.

    Attributes:
        pid: Its number.
        began: When it began, in the kernel's ticks since the boot; -1 where that is not known.
    """

    pid: int
    began: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Describe a driver that holds a lease.

    Attributes:
        host: Name of its machine.
        machine: That boot of the machine and the space of process numbers; "" if not known.
        python: Its Python, or None once that has let go.
        jvm: Its JVM, or None if no JVM of this machine is part of it.
        server: Host of its Spark Connect server, or None.
        program: What was started.
        since: When it took the lease, by its own clock.
    """

    host: str
    machine: str
    python: ProcessId | None
    jvm: ProcessId | None
    server: str | None
    program: str
    since: str

    def __str__(self) -> str:
        jvm = f", JVM {self.jvm.pid}" if self.jvm else ""
        server = f", Spark Connect server {self.server}" if self.server else ""
        python = f"process {self.python.pid}" if self.python else "a process that has let go"
        return f"{self.program} on {self.host} ({python}{jvm}{server}), since {self.since}"

    @property
    def is_here(self) -> bool:
        """Return whether its processes can be seen from here."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Return whether nothing of it can write any more; False where that is not proven."""
        if self.server is not None:
            return False
        parts = [part for part in (self.python, self.jvm) if part is not None]
        return not parts or (self.is_here and not any(_runs(part) for part in parts))


def this_driver(spark: "SparkSession | None" = None) -> Holder:
    """Describe this process, with the JVM or the server of its session."""
    jvm, server = None, None
    if spark is not None and is_remote(spark):
        server = str(spark.client.host)
    elif spark is not None:
        jvm = process_id(jvm_pid(spark))
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        python=process_id(os.getpid()),
        jvm=jvm,
        server=server,
        program=_program(),
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )


def jvm_pid(spark: "SparkSession") -> int:
    """Return the process number of a session's JVM."""
    jvm: Any = spark.sparkContext._jvm
    return int(jvm.java.lang.ProcessHandle.current().pid())


def _program() -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return module.name if module is not None else Path(sys.argv[0] or "python").name


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux
        return ""


def process_id(pid: int) -> ProcessId:
    """Name a process that runs."""
    state = _state(pid)
    return ProcessId(pid=pid, began=-1 if state is None else state[1])


def _runs(process: ProcessId) -> bool:
    state = _state(process.pid)
    return state is not None and state[1] == process.began and state[0] not in _DEAD


def _state(pid: int) -> tuple[str, int] | None:
    """Return a process's state and when it began, or None if there is none."""
    try:
        words = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])
