"""The drivers of the crash drill: each repeats a step that was killed, compares, dies at the next.

One process imports what a driver needs and then forks one driver per plan, a line of JSON on the
standard input: `steps`, the tables to make undisturbed; `known`, the state of each table when it
was compared last, so that only what has changed is read; then, if there is a `fault`, its table's
step is run again and the JVM or the driver's own process is killed:

    data    as soon as a data file of the write is on the disk, before its commit
    commit  when the commit is in the log, before Dagster has its event
    before  when the table before it is written and has its event, before this one is begun

Every line on standard output is JSON, the last of each plan tells how the driver ended.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
from deltalake import DeltaTable

from infra import delta_arrow
from infra.lakehouse import Lakehouse
from infra.platform import Platform
from infra.settings import Settings
from jobs.run import freeze_manifest, prepare_dagster_home
from pipelines.contract import Table
from tests.benchmarks.crash_points import NEEDS, TABLES
from tests.local_folder import local

_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def main() -> int:
    """Fork a driver for each plan until the standard input ends."""
    from assets import events, tables, tokens  # noqa: F401 - for the drivers

    say(ready=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_drive(json.loads(line)))
        _, status = os.waitpid(child, 0)
        say(ended=os.waitstatus_to_exitcode(status))
    return 0


def _drive(plan: dict[str, Any]) -> int:
    began = time.monotonic()
    settings = Settings.from_env()
    prepare_dagster_home(settings)
    freeze_manifest(settings)
    platform = Platform()
    platform.spark()
    laps = {"start": time.monotonic() - began}
    lake = local(settings.lake)
    if not materialise(platform, plan["steps"]):
        say(error="a step that nobody disturbed failed")
        return 1
    laps["retry"] = time.monotonic() - began - sum(laps.values())
    made = [table for table in TABLES if delta_arrow.exists(lake, table)]
    states = {table.name: state_of(lake, table) for table in made}
    changed = [table for table in made if states[table.name] != plan["known"].get(table.name)]
    say(states=states, tables={table.name: rows_of(lake, table) for table in changed})
    say(orphans=[name for table in changed for name in orphans(lake, table)])
    laps["compare"] = time.monotonic() - began - sum(laps.values())
    say(laps=laps)
    if (fault := plan["fault"]) is None:
        from infra.spark_scratch import stop_session

        stop_session()
        return 0
    table = next(table for table in TABLES if table.name == fault["table"])
    steps = [table.name]
    if fault["moment"] == "before" and (needed := NEEDS[table.name]) is not None:
        steps = [needed, *steps]
    disturb(lake, table, how=fault["left"])
    arm(platform, table, moment=fault["moment"], victim=fault["victim"])
    say(failed=not materialise(platform, steps))
    return 0


def disturb(lake: Path, table: Table, *, how: str) -> None:
    """Take a table away or make it differ: a snapshot of the same rows would not be written.

    Args:
        lake: Root of the lake.
        table: One whose step is about to be run again.
        how: "nothing" to take the table away, "old" to take rows out of it.
    """
    folder = local(delta_arrow.table_path(lake, table))
    if how == "nothing":
        shutil.rmtree(folder)
    if how == "nothing" or table.partition_by is not None:  # days are written whatever is there
        return
    name = next(name for name in table.key if dict(table.columns)[name] == "string")
    first = min(delta_arrow.arrow(lake, table, columns=(name,))[name].to_pylist())
    DeltaTable(str(folder)).delete(f"{name} = '{first}'")


def materialise(platform: Platform, names: list[str]) -> bool:
    """Materialise the steps of some tables over all days, without checks."""
    from assets import events, tables, tokens
    from assets.partitions import EVENT_PARTITIONS

    chosen = set(names)
    if chosen & {"rejected_events", "interactions"}:  # one step makes both
        chosen |= {"rejected_events", "interactions"}
    keys = EVENT_PARTITIONS.get_partition_keys()
    result = dg.materialize(
        dg.load_assets_from_modules([events, tables, tokens]),  # pyright: ignore[reportArgumentType]
        selection=sorted(chosen),
        instance=dg.DagsterInstance.get(),
        resources={"platform": platform},
        tags={_RANGE[0]: keys[0], _RANGE[1]: keys[-1]},
        raise_on_error=False,
    )
    return result.success


def arm(platform: Platform, table: Table, *, moment: str, victim: str) -> None:
    """Kill the victim when the table's write reaches a moment."""
    spark = platform.spark()
    gateway: Any = spark.sparkContext._gateway
    pid = os.getpid() if victim == "python" else gateway.proc.pid
    folder = local(delta_arrow.table_path(platform.settings().lake, table))

    has_log = DeltaTable.is_deltatable(str(folder))
    say(
        table=table.name,
        moment=moment,
        jvm=gateway.proc.pid,
        version=DeltaTable(str(folder)).version() if has_log else -1,
        files=[path.name for path in folder.rglob("*.parquet")] if has_log else [],
    )

    def kill() -> None:
        say(killed=victim)
        os.kill(pid, signal.SIGKILL)

    for name in ("overwrite", "overwrite_partition"):
        write = getattr(Lakehouse, name)
        setattr(Lakehouse, name, _with_fault(write, table, folder, moment=moment, kill=kill))


def _with_fault(
    write: Callable[..., Any],
    table: Table,
    folder: Path,
    *,
    moment: str,
    kill: Callable[[], None],
) -> Callable[..., Any]:
    def faulty(self: Lakehouse, written: Table, *args: Any, **options: Any) -> Any:
        if written.name != table.name:
            return write(self, written, *args, **options)
        if moment == "before":
            kill()
        if moment == "data":
            threading.Thread(target=_kill_at_data, args=(folder, kill), daemon=True).start()
        done = write(self, written, *args, **options)
        if moment == "commit":
            kill()
        return done

    return faulty


def _kill_at_data(folder: Path, kill: Callable[[], None]) -> None:
    before = set(folder.rglob("*.parquet"))
    while not set(folder.rglob("*.parquet")) - before:
        time.sleep(0.0005)
    kill()


def state_of(lake: Path, table: Table) -> str:
    """Return a digest of what the newest version of a table is made of: its files never change."""
    opened = delta_arrow.open_table(lake, table)
    files = sorted((uri, Path(uri).stat().st_size) for uri in opened.file_uris())
    return hashlib.sha256(repr((opened.version(), files)).encode()).hexdigest()


def rows_of(lake: Path, table: Table) -> list[str]:
    """Return a digest of each row of a table, sorted."""
    rows = delta_arrow.arrow(lake, table).to_pylist()
    return sorted(hashlib.sha256(repr(row).encode()).hexdigest()[:16] for row in rows)


def orphans(lake: Path, table: Table) -> list[str]:
    """Return the files of a table's folder that no version of it names."""
    folder = local(delta_arrow.table_path(lake, table))
    newest = DeltaTable(str(folder)).version()
    named = {
        uri.removeprefix("file://")
        for version in range(newest + 1)
        for uri in DeltaTable(str(folder), version=version).file_uris()
    }
    stray = [path for path in folder.rglob("*.parquet") if str(path) not in named]
    stray += [
        path
        for path in folder.rglob(".*.parquet.crc")
        if not path.with_name(path.name[1 : -len(".crc")]).exists()
    ]
    stray += folder.rglob("*.tmp")
    return [str(path.relative_to(lake)) for path in stray if "checkpoint" not in path.name]


def say(**facts: Any) -> None:
    """Print facts as one line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
