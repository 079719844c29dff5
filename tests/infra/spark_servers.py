"""Start the Sparks that run elsewhere, on loopback: a standalone master with workers, a server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyspark

from infra.settings import Settings
from infra.spark import spark_options

SPARK_HOME = Path(next(iter(pyspark.__path__)))
_LOOPBACK = "127.0.0.1"
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_START_SECONDS = 90.0
# Small frames: the second compiler costs a third of all time and never pays it back.
_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Duser.timezone=UTC"


@contextmanager
def standalone(folder: Path, *, workers: int = 2) -> Iterator[str]:
    """Run a master with workers of one core each; yield its address.

    Args:
        folder: For logs and scratch.
        workers: How many; a master may be without.
    """
    port = free_port()
    url = f"spark://{_LOOPBACK}:{port}"
    pages = ["--webui-port", "0"]
    commands = [[_MASTER, "--host", _LOOPBACK, "--port", str(port), *pages]]
    limits = ["--host", _LOOPBACK, "--cores", "1", "--memory", "1g"]
    for number in range(workers):
        work = ["--work-dir", str(folder / f"work-{number}")]
        commands.append([_WORKER, *limits, *work, *pages, url])
    environ = {
        **os.environ,
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": _LOOPBACK,
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": _JAVA,
    }
    program = str(SPARK_HOME / "bin" / "spark-class")
    logs = [folder / f"standalone-{number}.log" for number in range(len(commands))]
    with started([[program, *command] for command in commands], environ=environ, logs=logs):
        wait_for_line(logs[0], "I have been elected leader")
        for log in logs[1:]:
            wait_for_line(log, "Successfully registered with master")
        yield url


@contextmanager
def connect_server(
    folder: Path, settings: Settings, *, extra: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a Spark Connect server with Delta; yield its address.

    Args:
        folder: For its log.
        settings: Whose options it takes.
        extra: Options instead of theirs.
    """
    port = free_port()
    options = {
        **spark_options(settings),
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": _JAVA,
        "spark.connect.grpc.binding.address": _LOOPBACK,
        "spark.connect.grpc.binding.port": str(port),
        **(extra or {}),
    }
    command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", "local[2]"]
    for name, value in options.items():
        command += ["--conf", f"{name}={value}"]
    command += ["--class", _SERVER, "spark-internal"]
    environ = {
        **os.environ,
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": _LOOPBACK,
        "PYSPARK_PYTHON": sys.executable,
    }
    log = folder / "connect.log"
    with started([command], environ=environ, logs=[log]):
        wait_for_line(log, "Spark Connect server started at")
        yield f"sc://{_LOOPBACK}:{port}"


@contextmanager
def started(
    commands: Sequence[Sequence[str]], *, environ: dict[str, str], logs: Sequence[Path]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run commands, each with a log, and end them by their ids."""
    processes = []
    try:
        for command, log in zip(commands, logs, strict=True):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as file:
                processes.append(
                    subprocess.Popen(command, env=environ, stdout=file, stderr=file, cwd=log.parent)
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def wait_for_line(log: Path, text: str) -> None:
    """Wait until a log holds a text.

    Raises:
        RuntimeError: If it does not within 90 s.
    """
    deadline = time.monotonic() + _START_SECONDS
    while text not in (found := log.read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{log} does not say {text!r}:\n{found[-2000:]}")
        time.sleep(0.1)


def wait_for_port(port: int) -> None:
    """Wait until something listens on a port of loopback.

    Raises:
        RuntimeError: If nothing does within 90 s.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((_LOOPBACK, port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
