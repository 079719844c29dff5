"""Say where a Spark run's time went, from its own event log, beside bytes over bandwidth."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Figures of a task in the event log, and the name of each here.
_TASK = {
    "run_ms": ("Executor Run Time",),
    "cpu_ns": ("Executor CPU Time",),
    "gc_ms": ("JVM GC Time",),
    "spilled": ("Disk Bytes Spilled",),
    "read": ("Input Metrics", "Bytes Read"),
    "shuffle_local": ("Shuffle Read Metrics", "Local Bytes Read"),
    "shuffle_remote": ("Shuffle Read Metrics", "Remote Bytes Read"),
    "shuffled": ("Shuffle Write Metrics", "Shuffle Bytes Written"),
    "shuffle_ns": ("Shuffle Write Metrics", "Shuffle Write Time"),
    "written": ("Output Metrics", "Bytes Written"),
}
# Metrics of plan nodes that say what a stage did, summed over its tasks.
_NODES = {
    "sort time": "sort_ms",
    "time to run Python workers": "python_ms",
    "data sent to Python workers": "to_python",
    "data returned from Python workers": "from_python",
}
_MIB = 2**20
_PROBE_BYTES = 256 * _MIB


def event_log_options(folder: Path) -> str:
    """Return submit arguments that make Spark write its event log into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.as_uri(),
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }
    stated = " ".join(f"--conf {name}={value}" for name, value in options.items())
    return f"{stated} pyspark-shell"


def read_stages(folder: Path, *, since_ms: float) -> list[dict[str, Any]]:
    """Return the stages that began at a time or later, with the sums of their tasks' figures.

    Args:
        folder: Where the event log is.
        since_ms: Milliseconds since 1970.
    """
    stages: dict[int, dict[str, Any]] = {}
    for event in _events(folder):
        if event["Event"] != "SparkListenerTaskEnd" or "Task Metrics" not in event:
            continue
        info, metrics = event["Task Info"], event["Task Metrics"]
        if info["Launch Time"] < since_ms:
            continue
        stage = stages.setdefault(event["Stage ID"], {"stage": event["Stage ID"], "tasks": 0})
        stage["tasks"] += 1
        stage["from_ms"] = min(stage.get("from_ms", np.inf), info["Launch Time"])
        stage["to_ms"] = max(stage.get("to_ms", 0), info["Finish Time"])
        for name, path in _TASK.items():
            stage[name] = stage.get(name, 0) + _at(metrics, path)
        for update in info.get("Accumulables", []):
            if (name := _NODES.get(update.get("Name", ""))) is not None:
                stage[name] = stage.get(name, 0) + int(update.get("Update", 0))
    return [stages[number] for number in sorted(stages)]


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        with path.open() as lines:
            for line in lines:
                if line.endswith("}\n"):  # the last line of a process that was killed may be cut
                    yield json.loads(line)


def _at(metrics: Mapping[str, Any], path: tuple[str, ...]) -> int:
    found: Any = metrics
    for name in path:
        found = found.get(name, {})
    return int(found or 0)


def bandwidths(folder: Path) -> dict[str, float]:
    """Measure bytes per second: writing a file to the disk, reading it cached, and copying memory.

    Args:
        folder: Where the file is made and removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, content = folder / "probe.bin", np.ones(_PROBE_BYTES, np.uint8)
    target = np.zeros_like(content)
    target.fill(1)  # its pages are there before the clock starts
    started = time.perf_counter()
    with path.open("wb") as file:
        file.write(content.data)
        os.fsync(file.fileno())
    written = time.perf_counter()
    with path.open("rb") as file:
        file.readinto(content.data)
    read = time.perf_counter()
    np.copyto(target, content)
    copied = time.perf_counter()
    path.unlink()
    return {
        "write": _PROBE_BYTES / (written - started),
        "read": _PROBE_BYTES / (read - written),
        "memcpy": _PROBE_BYTES / (copied - read),
    }


def print_stages(stages: list[dict[str, Any]], *, speeds: Mapping[str, float]) -> None:
    """Print a line per stage that took time, with its least time by bytes over bandwidth.

    The least time reads and writes each byte once from cached files and copies once what goes to
    Python and back; bytes are compressed ones, as the log counts them. Those of files on a local
    disk Spark counts as 0.
    """
    shown = ", ".join(f"{name} {value / 2**30:.1f} GiB/s" for name, value in speeds.items())
    print(f"stages of ranklake's last run ({shown}); MiB unless said; seconds of tasks in brackets")
    for stage in stages:
        seconds = (stage["to_ms"] - stage["from_ms"]) / 1000
        if seconds < 0.2:
            continue
        shuffle = stage["shuffle_local"] + stage["shuffle_remote"]
        python = stage.get("to_python", 0) + stage.get("from_python", 0)
        least = (
            (stage["read"] + shuffle) / speeds["read"]
            + (stage["shuffled"] + stage["written"]) / speeds["write"]
            + python / speeds["memcpy"]
        )
        tasks = (
            f"{stage['tasks']} tasks [{stage['run_ms'] / 1000:.1f} run, "
            f"{stage['cpu_ns'] / 1e9:.1f} CPU of the JVM, {stage['gc_ms'] / 1000:.1f} GC, "
            f"{stage.get('sort_ms', 0) / 1000:.1f} sort, "
            f"{stage['shuffle_ns'] / 1e9:.1f} shuffle write, "
            f"{stage.get('python_ms', 0) / 1000:.1f} Python]"
        )
        parts = (
            tasks,
            f"read {stage['read'] / _MIB:.0f}",
            f"shuffle in {shuffle / _MIB:.0f}",
            f"shuffle out {stage['shuffled'] / _MIB:.0f}",
            f"to and from Python {python / _MIB:.0f}",
            f"written {stage['written'] / _MIB:.0f}",
            f"spilled {stage['spilled'] / _MIB:.0f}",
        )
        print(
            f"  stage {stage['stage']:>3} {seconds:7.1f} s, least {least:6.2f} s: "
            + ", ".join(parts)
        )
