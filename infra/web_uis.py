"""Serve the web UIs of Dagster and MLflow on loopback until the user ends them."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from infra.settings import Settings

_LOG = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_DAGSTER_PORT, _MLFLOW_PORT = 3000, 5000
_GRACE_SECONDS = 15.0
# MLflow's job runners serve scorers of traces, which ranklake has none of.
_NO_JOB_RUNNERS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def commands(settings: Settings, *, dagster_port: int, mlflow_port: int) -> dict[str, list[str]]:
    """Return the command line of each server by its name."""
    tools = Path(sys.executable).parent
    return {
        "Dagster": [
            *(str(tools / "dagster"), "dev", "--workspace", "workspace.yaml"),
            *("--host", _HOST, "--port", str(dagster_port)),
        ],
        "MLflow": [
            *(str(tools / "mlflow"), "server", "--backend-store-uri", settings.mlflow_tracking_uri),
            *("--default-artifact-root", settings.mlflow_artifacts_uri),
            *("--host", _HOST, "--port", str(mlflow_port), "--workers", "1"),
        ],
    }


def free_port(preferred: int) -> int:
    """Return the preferred port of the loopback interface, or another that is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {_HOST}")


def serve(settings: Settings) -> int:
    """Start both servers, wait until one ends or the user interrupts, and end both.

    Returns:
        0 after an interruption, 1 if a server ended by itself.
    """
    for folder in (settings.dagster_home, settings.workspace / "mlflow" / "artifacts"):
        folder.mkdir(parents=True, exist_ok=True)
    ports = {"Dagster": free_port(_DAGSTER_PORT), "MLflow": free_port(_MLFLOW_PORT)}
    lines = commands(settings, dagster_port=ports["Dagster"], mlflow_port=ports["MLflow"])
    environ = {
        **_NO_JOB_RUNNERS,
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "RANKLAKE_HOME": str(settings.home),
        "RANKLAKE_DAGSTER_URL": settings.dagster_url or f"http://{_HOST}:{ports['Dagster']}",
    }
    servers = {
        name: subprocess.Popen(line, env=environ, start_new_session=True)
        for name, line in lines.items()
    }
    signal.signal(signal.SIGTERM, _interrupt)
    for name, port in ports.items():
        _LOG.info("%s: http://%s:%d", name, _HOST, port)
    _LOG.info("Ctrl-C ends both")
    try:
        return _wait(servers)
    except KeyboardInterrupt:
        return 0
    finally:
        _end(list(servers.values()))


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _wait(servers: dict[str, subprocess.Popen[bytes]]) -> int:
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                _LOG.error("%s ended with status %d", name, server.returncode)
                return 1
        time.sleep(0.5)


def _end(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt each server's process group, and kill what is left after the time of grace."""
    deadline = time.monotonic() + _GRACE_SECONDS
    for how in (signal.SIGINT, signal.SIGTERM):
        for server in servers:
            if server.poll() is None:
                os.killpg(server.pid, how)
        for server in servers:
            _join(server, seconds=max(0.1, (deadline - time.monotonic()) / 2))
    for server in servers:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)


def _join(server: subprocess.Popen[bytes], *, seconds: float) -> None:
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        _LOG.info("process %d is still ending", server.pid)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(serve(Settings.from_env()))
