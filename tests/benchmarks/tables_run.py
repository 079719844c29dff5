"""Measure one cell of the table benchmarks: an engine over a log, in a process of its own."""

import json
import os
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.settings import Settings
from tests.benchmarks.tables_cells import Cells
from tests.benchmarks.tables_log import LogPlan
from tests.benchmarks.tables_output import row_hash, written_files
from tests.benchmarks.tables_stages import read_stages
from tests.benchmarks.tables_watch import DONE, Outcome, run_child

LIMIT_BYTES = 8 * 2**30
_TIMEOUT_SECONDS = 1_500.0
_CHILD = "tests.benchmarks.tables_child"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Say where a benchmark works.

    Attributes:
        home: Folder of logs, results and scratch.
        environ: Environment of its children.
        cells: What was measured already.
    """

    home: Path
    environ: dict[str, str]
    cells: Cells

    @property
    def logs(self) -> Path:
        """Return the cache of logs."""
        return self.home / "logs"


def open_bench(name: str, *, fresh: bool) -> Bench:
    """Open a benchmark's folder in the data home.

    Args:
        name: The benchmark's name.
        fresh: Whether to forget an unfinished run.
    """
    settings = Settings.from_env()
    home = settings.home / "bench" / "tables"
    own = ("RANKLAKE_", "SPARK_", "PYSPARK_")
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(own)}
    environ = {
        **inherited,
        "POLARS_MAX_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "RANKLAKE_JARS": str(settings.jar_cache),
    }
    return Bench(home=home, environ=environ, cells=Cells(home / f"{name}.json", fresh=fresh))


def partitions_for(events: int) -> int:
    """Return the shuffle partitions of both Spark engines: about two million rows in each."""
    return max(4, events // 2_000_000)


def measure(bench: Bench, engine: str, log: LogPlan, *, repeats: int) -> dict[str, Any]:
    """Return a cell, measuring it if it is not there yet.

    Args:
        bench: The benchmark.
        engine: Name of the engine.
        log: The log; it must be in the cache.
        repeats: Runs, of which the median counts.

    Returns:
        state, seconds (median, None unless done), runs, peak_gib, hash, detail, load (the
        machine's load before the start), and whatever else the last run said.
    """
    key = f"{engine} {json.dumps(asdict(log))} x{repeats}"
    if key in bench.cells:
        return bench.cells[key]
    folder = bench.home / "work"
    shutil.rmtree(folder, ignore_errors=True)
    load = os.getloadavg()[0]
    plan = {
        "engine": engine,
        "log": asdict(log),
        "folder": str(folder),
        "cache": str(bench.logs),
        "repeats": repeats,
        "limit_bytes": LIMIT_BYTES,
        "partitions": partitions_for(log.events),
    }
    started = time.monotonic()
    outcome = run_child(
        _CHILD,
        plan,
        limit_bytes=LIMIT_BYTES,
        timeout_seconds=_TIMEOUT_SECONDS,
        environ=bench.environ,
    )
    output = folder / "output"
    rows = output / "rows" if (output / "rows").exists() else output
    cell = _cell(outcome, rows) | {"load": round(load, 1)}
    if cell["state"] == DONE and (folder / "event-log").exists():
        cell["stages"] = read_stages(folder / "event-log", since_ms=cell["began_ms"])
    _tell(engine, log, cell, seconds=time.monotonic() - started)
    shutil.rmtree(folder, ignore_errors=True)
    bench.cells.put(key, cell)
    return cell


def _cell(outcome: Outcome, output: Path) -> dict[str, Any]:
    runs = outcome.all("seconds")
    is_done = outcome.state == DONE and bool(runs)
    last = next((line for line in reversed(outcome.said) if "seconds" in line), {})
    return {
        **{name: value for name, value in last.items() if name != "seconds"},
        "state": outcome.state,
        "seconds": statistics.median(runs) if is_done else None,
        "runs": [round(run, 2) for run in runs],
        "peak_gib": outcome.peak_bytes / 2**30,
        "hash": row_hash(written_files(output)) if is_done else None,
        "detail": outcome.detail,
    }


def _tell(engine: str, log: LogPlan, cell: dict[str, Any], *, seconds: float) -> None:
    shown = "" if cell["seconds"] is None else f"{cell['seconds']:.1f} s of {cell['runs']}, "
    print(
        f"  {log.shape} {log.events:>11,} {engine:<10} {cell['state']}: {shown}"
        f"peak {cell['peak_gib']:.2f} GiB {cell['detail']} "
        f"(load before {cell['load']}, {seconds:.0f} s in all)",
        flush=True,
    )
