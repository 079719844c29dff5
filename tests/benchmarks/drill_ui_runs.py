"""Launch two runs at once as the web UI does: they wait for each other, in time and in memory.

make drill NAME=ui-runs

The two commands of `make ui` serve a new data home of the test profile. A run is launched alone
by the mutation that the UI's button sends, then two at once. As a control, two more are launched
with two slots in the pool, as the page Deployment, Concurrency sets them: they must overlap, or
the drill would see nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import psutil

from assets.outcomes import MEMORY_POOL
from infra.jars import delta_jars
from infra.settings import Settings
from tests.benchmarks.tables_watch import tree_bytes

ROOT = Path(__file__).parents[2]
ASSETS = ("raw_events", "rejected_events", "interactions")
_TIMEOUT_SECONDS = 600.0
_INTERVAL_SECONDS = 0.25
_LAUNCH = """mutation LaunchMultipleRuns($runs: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $runs) { ... on LaunchMultipleRunsResult {
    launchMultipleRunsResult { __typename ... on LaunchRunSuccess { run { id } } } } } }"""
_STEPS = """query($id: ID!) { runOrError(runId: $id) { ... on Run {
  status startTime endTime stepStats { stepKey startTime endTime } } } }"""
_LIMIT = """mutation SetConcurrencyLimit($key: String!, $limit: Int!) {
  setConcurrencyLimit(concurrencyKey: $key, limit: $limit) }"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Tell what came of runs that were launched at once.

    Attributes:
        lost: Runs that did not succeed.
        overlaps: Pairs of steps of different runs that were at work at the same time.
        peak_bytes: Most memory that the UI and its runs held at once, by proportional set sizes.
        most_drivers: Most Spark drivers that were there at once.
    """

    lost: int
    overlaps: int
    peak_bytes: int
    most_drivers: int


@dataclass(kw_only=True)
class Watch:
    """Sample the memory and the Spark drivers of a process tree while it is entered."""

    pid: int
    peak_bytes: int = 0
    most_drivers: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        """Start sampling."""
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(_INTERVAL_SECONDS):
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self.pid))
            self.most_drivers = max(self.most_drivers, _drivers(self.pid))


def _drivers(pid: int) -> int:
    found = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            found += process.name() == "java" and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def web_ui(environ: dict[str, str], log: Path) -> Iterator[tuple[int, str]]:
    """Run what `make ui` runs; yield the process's id and Dagster's address."""
    prepare = [sys.executable, "-m", "jobs.run", "--prepare-only"]
    subprocess.run(prepare, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "infra.web_uis"], cwd=ROOT, env=environ, stdout=file, stderr=file
        )
    try:
        address = _until(lambda: re.search(r"^Dagster: (http://\S+)$", log.read_text(), re.M))[1]
        _until(lambda: _repository(address))
        yield server.pid, address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _repository(address: str) -> str | None:
    """Return the name of the loaded repository, or None while there is none."""
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"""
    try:
        nodes = ask(address, query)["repositoriesOrError"]["nodes"]
    except (OSError, KeyError):
        return None
    return nodes[0]["name"] if nodes else None


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    """Send a query or a mutation to Dagster's web server and return its data."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"{address}/graphql", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    if found.get("errors"):
        raise RuntimeError(found["errors"])
    return found["data"]


def _until(condition: Any) -> Any:
    """Return the first true answer of a condition."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it within {_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.5)
    return found


def launch(server: tuple[int, str], days: Sequence[str]) -> Ended:
    """Launch a run for each day, all at once, and wait for their ends."""
    pid, address = server
    selector = {
        "repositoryName": _repository(address),
        "repositoryLocationName": "ranklake",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": [name]} for name in ASSETS],
    }
    runs = [
        {
            "mode": "default",
            "selector": selector,
            "runConfigData": "{}",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
        }
        for day in days
    ]
    with Watch(pid=pid) as watch:
        told = ask(address, _LAUNCH, runs=runs)["launchMultipleRuns"]["launchMultipleRunsResult"]
        ids = [each["run"]["id"] for each in told]
        ends = [_until(lambda run=run: _ended(address, run)) for run in ids]
    return Ended(
        lost=sum(end["status"] != "SUCCESS" for end in ends),
        overlaps=_overlaps(ends),
        peak_bytes=watch.peak_bytes,
        most_drivers=watch.most_drivers,
    )


def _ended(address: str, run: str) -> dict[str, Any] | None:
    found = ask(address, _STEPS, id=run)["runOrError"]
    return found if found["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None


def _overlaps(ends: Sequence[dict[str, Any]]) -> int:
    """Count the pairs of steps of two runs, one of which began before the other ended."""
    pairs = (
        (one, other)
        for place, first in enumerate(ends)
        for second in ends[place + 1 :]
        for one, other in product(first["stepStats"], second["stepStats"])
    )
    return sum(
        max(one["startTime"], other["startTime"]) < min(one["endTime"], other["endTime"])
        for one, other in pairs
    )


def drill(home: Path, jars: Path) -> dict[str, Any]:
    """Run the drill in an empty home; print each round and return the line."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RANKLAKE_")}
    places = {"RANKLAKE_HOME": str(home), "RANKLAKE_JARS": str(jars)}
    environ = {**inherited, **places, "RANKLAKE_PROFILE": "test"}
    start = Settings.from_env(environ).feed_start
    days = [(start + timedelta(days=number)).isoformat() for number in range(5)]
    rounds = {}
    with web_ui(environ, home / "web-ui.log") as server:
        for name, chosen in (("alone", days[:1]), ("together", days[1:3]), ("control", days[3:])):
            if name == "control":
                ask(server[1], _LIMIT, key=MEMORY_POOL, limit=2)
            rounds[name] = launch(server, chosen)
            print(f"{name}: {rounds[name]}", flush=True)
    alone, together, control = rounds.values()
    if not (control.overlaps and control.most_drivers > 1):
        raise RuntimeError("two runs with two slots did not overlap: the drill sees nothing")
    lost = alone.lost + together.lost
    more_bytes = together.peak_bytes - alone.peak_bytes
    is_one_run = (
        together.most_drivers == alone.most_drivers
        and more_bytes < (control.peak_bytes - alone.peak_bytes) / 2
    )
    return {
        "drill": "ui-runs",
        "faults": 2,
        "lost": lost,
        "doubled": together.overlaps,
        "equal": lost == together.overlaps == 0 and is_one_run,
        **{f"peak_gib_{name}": round(end.peak_bytes / 2**30, 2) for name, end in rounds.items()},
    }


def main() -> int:
    """Run the drill; return 1 if two runs were at work at once, or one failed."""
    jars = delta_jars(Settings.from_env())[0].parent
    with tempfile.TemporaryDirectory(prefix="ranklake-ui-") as home:
        line = drill(Path(home), jars)
    print(json.dumps(line))
    return 0 if line["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
