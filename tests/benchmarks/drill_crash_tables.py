"""Kill the JVM or Python in each gap of the table assets; after the retry nothing differs.

make drill NAME=crash-tables [ARGS=<faults, 30 by default>]

The first run is undisturbed and is what every retry is compared with, row by row. Each driver
then repeats the step that its predecessor was killed in, compares all tables, looks for files
that no version names, and is killed itself at the next point.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from deltalake import DeltaTable

from infra.jars import delta_jars
from infra.settings import Settings
from tests.benchmarks.crash_tables_child import TABLES
from tests.local_folder import local

ROOT = Path(__file__).parents[2]
MOMENTS = ("data", "commit", "before")
GAPS = ("data written / commit", "commit / asset event", "table A / table B")
_SIZES = {"RANKLAKE_FEED_USERS": "60", "RANKLAKE_FEED_DAYS": "6", "RANKLAKE_PROFILE": "test"}
_TIMEOUT_SECONDS = 600


def points(number: int) -> list[dict[str, str]]:
    """Return fault points: every table, moment and victim in turn.

    Sixty points are all different: ten tables, three moments, two victims.
    """
    found = []
    for place in range(number):
        table = TABLES[place % len(TABLES)]
        cycle = place // len(TABLES)
        moment = MOMENTS[(place + cycle) % len(MOMENTS)]
        victim = ("jvm", "python")[(place + cycle // len(MOMENTS)) % 2]
        found.append({"table": table.name, "moment": moment, "victim": victim})
    return found


def drill(home: Path, jars: Path, *, faults: list[dict[str, str]]) -> dict[str, Any]:
    """Run the drill in an empty home; return its figures, and print where each kill landed.

    Args:
        home: An empty folder.
        jars: Folder of Delta's jars.
        faults: Points from `points`.
    """
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RANKLAKE_")}
    environ = {**inherited, **_SIZES, "RANKLAKE_HOME": str(home), "RANKLAKE_JARS": str(jars)}
    lake = local(Settings.from_env(environ).lake)
    started = _driver(environ, steps=[table.name for table in TABLES], fault=None)
    expected = {name: Counter(rows) for name, rows in started["tables"].items()}
    lost = doubled = stray = 0
    landed: Counter[str] = Counter()
    steps: list[str] = [TABLES[0].name]
    for number, fault in enumerate([*faults, None], start=1):
        began = time.monotonic()
        found = _driver(environ, steps=steps, fault=fault)
        for name, rows in found["tables"].items():
            after = Counter(rows)
            lost += (expected[name] - after).total()
            doubled += (after - expected[name]).total()
        stray += len(found["orphans"])
        if found["orphans"]:
            print(f"  no version names {', '.join(found['orphans'][:3])}")
        if fault is None:
            break
        if "killed" not in found:
            raise RuntimeError(f"fault {number} was never reached: {fault}")
        gap, state = _landing(lake, found)
        landed[f"{gap}, {fault['victim']}"] += 1
        print(
            f"{number:>3} {fault['victim']:<6} {gap:<22} {fault['table']:<16} {state}; "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
        steps = [fault["table"]]
    covered = all(any(name.startswith(gap) for name in landed) for gap in GAPS)
    print(f"landed: {dict(landed)}; files that no version names: {stray}")
    return {
        "drill": "crash-tables",
        "faults": len(faults),
        "lost": lost,
        "doubled": doubled,
        "equal": covered and lost == doubled == stray == 0,
    }


def _driver(
    environ: dict[str, str], *, steps: list[str], fault: dict[str, str] | None
) -> dict[str, Any]:
    plan = json.dumps({"steps": steps, "fault": fault})
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.crash_tables_child", plan],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    if "tables" not in found:
        raise RuntimeError(f"the retry of {steps} failed: {done.stderr[-3000:]}")
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
    files = {path.name for path in folder.rglob("*.parquet")} if folder.exists() else set()
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


def main() -> int:
    """Run the drill; return 1 if anything differs."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    jars = delta_jars(Settings.from_env())[0].parent
    with tempfile.TemporaryDirectory(prefix="ranklake-crash-") as home:
        line = drill(Path(home), jars, faults=points(number))
    print(json.dumps(line))
    return 0 if line["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
