"""One driver of the crash drill: repeats a step that was killed, compares, and dies at the next.

Reads a plan as JSON: `steps`, the assets to materialise undisturbed and compare; then, if there
is a `fault`, its table's step is materialised again and the JVM or this process is killed:

    data    as soon as a data file of the write is on the disk, before its commit
    commit  when the commit is in the log, before Dagster has its event
    before  when the table before it is finished, before this one is begun

Every line on standard output is JSON.
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
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEMS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEQUENCE_EVENTS,
    SEQUENCES,
    USERS,
)
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS
from tests.local_folder import local

TABLES = (
    RAW_EVENTS,
    REJECTED_EVENTS,
    INTERACTIONS,
    ITEM_DAYS,
    ITEM_VERSIONS,
    ITEMS,
    USER_VERSIONS,
    USERS,
    ITEM_COUNTERS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
    SEQUENCES,
)
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def main() -> int:
    """Carry out the plan in the first argument."""
    plan = json.loads(sys.argv[1])
    settings = Settings.from_env()
    prepare_dagster_home(settings)
    freeze_manifest(settings)
    platform = Platform()
    if plan["steps"]:
        if not materialise(platform, plan["steps"]):
            say(error="a step that nobody disturbed failed")
            return 1
        say(tables={table.name: rows_of(local(settings.lake), table) for table in TABLES})
        say(orphans=[name for table in TABLES for name in orphans(local(settings.lake), table)])
    if fault := plan.get("fault"):
        table = next(table for table in TABLES if table.name == fault["table"])
        if table.partition_by is None:  # the same rows again would not be written at all
            shutil.rmtree(local(delta_arrow.table_path(settings.lake, table)))
        arm(platform, table, moment=fault["moment"], victim=fault["victim"])
        say(failed=not materialise(platform, [table.name]))
    return 0


def materialise(platform: Platform, names: list[str]) -> bool:
    """Materialise the steps of some tables over all days, without checks."""
    from assets import events, tables
    from assets.partitions import EVENT_PARTITIONS

    steps = [events.raw_events, events.cleaned_events]
    steps += [tables.item_days, tables.item_versions, tables.items]
    steps += [tables.user_versions, tables.users]
    steps += [tables.item_counters, tables.percentile_cuts, tables.sequences]
    chosen = set(names)
    if chosen & {"rejected_events", "interactions"}:  # one step makes both
        chosen |= {"rejected_events", "interactions"}
    keys = EVENT_PARTITIONS.get_partition_keys()
    result = dg.materialize(
        steps,
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
