"""Both web UIs answer on loopback, and an interruption ends every process of theirs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from infra.settings import Settings
from infra.web_uis import commands, free_port

_START_SECONDS = 240.0


def _wait_for_answer(address: str, server: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return int(answer.status)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer")


def _addresses(log: Path) -> dict[str, str]:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = re.findall(r"^(Dagster|MLflow): (http://\S+)$", log.read_text(), re.MULTILINE)
        if len(found) == 2:
            return dict(found)
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_both_answer_and_end_together(
    tmp_path: Path, checkout: Path, mlflow_database: Path
) -> None:
    database = tmp_path / "home" / "simulated" / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copy(mlflow_database, database)
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "infra.web_uis"],
            cwd=checkout,
            env={**os.environ, "RANKLAKE_HOME": str(tmp_path / "home")},
            stderr=output,
            stdout=output,
        )
    started: list[psutil.Process] = []
    try:
        addresses = _addresses(log)
        assert all(address.startswith("http://127.0.0.1:") for address in addresses.values())
        assert _wait_for_answer(f"{addresses['Dagster']}/server_info", server) == 200
        assert _wait_for_answer(f"{addresses['MLflow']}/health", server) == 200
        started = psutil.Process(server.pid).children(recursive=True)
        assert len(started) >= 2
        assert not [each.pid for each in started if "huey" in " ".join(each.cmdline())]
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=120) == 0
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


def test_taken_port_is_replaced() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_servers_use_the_data_home_and_loopback(tmp_path: Path) -> None:
    lines = commands(Settings(home=tmp_path), dagster_port=3001, mlflow_port=5001)
    assert all("127.0.0.1" in line for line in lines.values())
    assert f"sqlite:///{tmp_path}/simulated/mlflow/mlflow.db" in lines["MLflow"]
    assert "workspace.yaml" in lines["Dagster"]
