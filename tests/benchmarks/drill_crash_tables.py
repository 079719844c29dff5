"""Kill the JVM or Python in each gap of the table assets; after the retry nothing differs.

make drill NAME=crash-tables [ARGS=<faults, two for each table by default>]

The first driver is undisturbed and is what every retry is compared with, row by row. Each later
one repeats the step that its predecessor was killed in, compares every table that has changed,
looks for files that no version names, and is killed itself at the next point. All run the assets
as `make run` does, through Dagster and its event log.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from deltalake import DeltaTable

from infra.jars import delta_jars
from infra.settings import Settings
from tests.benchmarks.crash_points import TABLES, Point, points
from tests.local_folder import local

ROOT = Path(__file__).parents[2]
GAPS = ("data written / commit", "commit / asset event", "table A / table B")
_SIZES = {"RANKLAKE_FEED_USERS": "60", "RANKLAKE_FEED_DAYS": "6", "RANKLAKE_PROFILE": "test"}
_TIMEOUT_SECONDS = 600


@dataclass(kw_only=True)
class Tally:
    """Hold what the tables should be, and count what differed.

    Attributes:
        expected: Rows of the undisturbed run by table, as digests.
        known: State of each table when it was compared last.
        lost: Rows that a retry did not bring back.
        doubled: Rows beyond those of the undisturbed run.
        stray: Files that no version names.
        compared: Tables compared row by row.
    """

    expected: dict[str, Counter[str]] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    stray: int = 0
    compared: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Compare what a driver found after its retry; the first one's is what should be."""
        rows = {name: Counter(listed) for name, listed in found["tables"].items()}
        self.known = found["states"]
        self.expected = self.expected or rows
        if empty := [name for name, listed in self.expected.items() if not listed]:
            raise RuntimeError(
                f"tables are empty, of which nothing can be lost: {', '.join(empty)}"
            )
        if missing := self.expected.keys() - self.known.keys():
            raise RuntimeError(f"tables are gone: {', '.join(sorted(missing))}")
        for name, after in rows.items():
            self.lost += (self.expected[name] - after).total()
            self.doubled += (after - self.expected[name]).total()
            self.compared += 1
        self.stray += len(found["orphans"])
        for name in found["orphans"][:3]:
            print(f"  no version names {name}")


def drill(
    home: Path, jars: Path, *, faults: Sequence[Point], tables: Sequence[str] = ()
) -> dict[str, Any]:
    """Run the drill in an empty home; return its figures, and print where each kill landed.

    Args:
        home: An empty folder.
        jars: Folder of Delta's jars.
        faults: Points from `points`.
        tables: Names of the tables to make, all by default.
    """
    names = list(tables) or [table.name for table in TABLES]
    environ = _environ(home, jars)
    lake = local(Settings.from_env(environ).lake)
    tally, landed = Tally(), Counter[str]()
    with _drivers(environ) as process:
        steps = names
        for number, fault in enumerate(faults, start=1):
            began = time.monotonic()
            found = _ask(process, steps=steps, known=tally.known, fault=fault)
            tally.add(found)
            if "killed" not in found:
                raise RuntimeError(f"fault {number} was never reached: {fault}")
            gap, state = _landing(lake, found)
            landed[f"{gap}, {fault.victim}"] += 1
            print(
                f"{number:>3} {fault.victim:<6} {gap:<22} {fault.table:<16} {state}; "
                f"{time.monotonic() - began:.0f} s ({_spelled(found['laps'])})",
                flush=True,
            )
            steps = [fault.table]
        tally.add(_ask(process, steps=steps, known={}, fault=None))  # now every table
    covered = all(any(name.startswith(gap) for name in landed) for gap in GAPS)
    print(f"landed: {dict(landed)}; files that no version names: {tally.stray}")
    print(f"{len(tally.expected)} tables, compared {tally.compared} times, at last every one")
    return {
        "drill": "crash-tables",
        "faults": len(faults),
        "lost": tally.lost,
        "doubled": tally.doubled,
        "equal": covered and tally.lost == tally.doubled == tally.stray == 0,
    }


def _environ(home: Path, jars: Path) -> dict[str, str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RANKLAKE_")}
    return {**inherited, **_SIZES, "RANKLAKE_HOME": str(home), "RANKLAKE_JARS": str(jars)}


@contextmanager
def _drivers(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the process that forks drivers; end it and what it left."""
    errors = Path(environ["RANKLAKE_HOME"]) / "drivers.log"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.crash_tables_child"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        except Exception as error:
            error.add_note(errors.read_text()[-3000:])
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # drivers and their JVMs as well
            process.wait()


def _ask(
    process: subprocess.Popen[str],
    *,
    steps: list[str],
    known: dict[str, str],
    fault: Point | None,
) -> dict[str, Any]:
    """Give a plan to a driver; return all that it said until it ended."""
    assert process.stdin is not None and process.stdout is not None
    plan = {"steps": steps, "known": known, "fault": fault and fault.plan()}
    process.stdin.write(json.dumps(plan) + "\n")
    process.stdin.flush()
    found: dict[str, Any] = {}
    timer = threading.Timer(_TIMEOUT_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        while "ended" not in found:
            if not (line := process.stdout.readline()):
                raise RuntimeError(f"the drivers' process ended at {plan['fault']}: {found}")
            if line.startswith("{"):
                found |= json.loads(line)
    finally:
        timer.cancel()
    if "orphans" not in found:
        raise RuntimeError(f"the retry of {steps} failed: {found}")
    return found


def _landing(lake: Path, found: dict[str, Any]) -> tuple[str, str]:
    """Return the gap that a kill landed in, judged by what is on the disk, and what is there."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while _is_running(found["jvm"]) and time.monotonic() < deadline:
        time.sleep(0.1)  # of a killed driver the JVM goes on for a while
    table = next(table for table in TABLES if table.name == found["table"])
    folder = lake / table.group / table.name
    has_log = DeltaTable.is_deltatable(str(folder))
    opened = DeltaTable(str(folder)) if has_log else None
    version = opened.version() if opened else -1
    named = {Path(uri).name for uri in opened.file_uris()} if opened else set()
    files = {path.name for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}
    new = files - named - set(found["files"])
    if version > found["version"]:
        return GAPS[1], f"version {version} is whole, {len(new)} files of no version"
    gap = GAPS[0] if found["moment"] == "data" else GAPS[2]
    left = "no table" if version < 0 else f"version {version} as before"
    return gap, f"{left}, {len(new)} files of no version"


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _spelled(laps: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in laps.items())


def main() -> int:
    """Run the drill; return 1 if anything differs."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2 * len(TABLES)
    jars = delta_jars(Settings.from_env())[0].parent
    with tempfile.TemporaryDirectory(prefix="ranklake-crash-") as home:
        line = drill(Path(home), jars, faults=points(number))
    print(json.dumps(line))
    return 0 if line["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
