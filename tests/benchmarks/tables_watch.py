"""Run one child process of a benchmark, hold it to a memory limit and hear what it says."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

OUT_OF_MEMORY = "out of memory"
DONE = "done"
_INTERVAL_SECONDS = 0.5
_ROOT = Path(__file__).parents[2]


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Tell how a child fared.

    Attributes:
        state: "done", "out of memory", "too slow" or "failed".
        said: The JSON objects that it printed, in order.
        peak_bytes: Most memory that it and all its descendants held at once: the sum of their
            proportional set sizes, which counts a page that several of them share once.
        detail: Why it did not end well, in a line.
    """

    state: str
    said: list[dict[str, Any]] = field(default_factory=list)
    peak_bytes: int = 0
    detail: str = ""

    def all(self, name: str) -> list[Any]:
        """Return every value that the child gave a name, in order."""
        return [line[name] for line in self.said if name in line]


def run_child(
    module: str,
    plan: Mapping[str, Any],
    *,
    limit_bytes: int,
    timeout_seconds: float,
    environ: Mapping[str, str],
) -> Outcome:
    """Run a module with a plan as its argument until it ends, is too large or too slow.

    A child that says `{"failed": "out of memory"}`, because its own limit was hit, and one that
    is stopped here because it holds more than the limit, come to the same.

    Args:
        module: Module to run; prints JSON lines.
        plan: What it gets, as JSON.
        limit_bytes: Most memory that its process tree may hold; above it all of it is killed.
        timeout_seconds: When it is killed at the latest.
        environ: Its environment, whole.
    """
    log = Path(plan["folder"]) / "child.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(dict(plan))],
            cwd=_ROOT,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        outcome = Outcome(state=DONE)
        reader = threading.Thread(target=_listen, args=(child, outcome.said), daemon=True)
        reader.start()
        try:
            stopped = _watch(child, outcome, limit_bytes=limit_bytes, seconds=timeout_seconds)
        finally:
            _kill_tree(child.pid)
            child.wait()
        reader.join()
    failures = outcome.all("failed")
    outcome.state = stopped or (failures[-1] if failures else DONE)
    if not stopped and not failures and child.returncode:
        outcome.state = "failed"
    if outcome.state == "failed":
        outcome.detail = _last_line(log)
    return outcome


def _watch(
    child: subprocess.Popen[bytes], outcome: Outcome, *, limit_bytes: int, seconds: float
) -> str:
    """Wait for the child; return why it must be stopped, or nothing if it ended by itself."""
    deadline = time.monotonic() + seconds
    while child.poll() is None:
        held = tree_bytes(child.pid)
        outcome.peak_bytes = max(outcome.peak_bytes, held)
        if held > limit_bytes:
            outcome.detail = f"stopped at {held / 2**30:.1f} GiB"
            return OUT_OF_MEMORY
        if time.monotonic() > deadline:
            outcome.detail = f"stopped after {seconds:.0f} s"
            return "too slow"
        time.sleep(_INTERVAL_SECONDS)
    return ""


def tree_bytes(pid: int) -> int:
    """Return the proportional set size of a process and its descendants."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return sum(_held_bytes(each) for each in [root, *root.children(recursive=True)])
    return 0


def _held_bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.memory_full_info().pss
    return 0


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for each in [*root.children(recursive=True), root]:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _listen(child: subprocess.Popen[bytes], said: list[dict[str, Any]]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(b"{"):
            said.append(json.loads(line))


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")[:200]
