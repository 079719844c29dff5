"""Weekly care of the tables, as a Dagster job and as `make care`."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from infra.errors import UserError
from infra.platform import Platform
from infra.run_lock import run_lock

if TYPE_CHECKING:
    from infra.table_care import Cared


def care_for_tables(platform: Platform, *, dry_run: bool = False) -> list["Cared"]:
    """Care for every table that exists, keeping what registered models were trained on.

    Args:
        platform: Where the lake and the registry are.
        dry_run: Change nothing.

    Raises:
        UserError: If the data home has never been run.
    """
    from infra.delta_arrow import exists
    from infra.table_care import care_for
    from pipelines.tables import ALL_TABLES

    settings = platform.settings()
    if settings.load_manifest() is None:
        raise UserError(
            f"there is no table to care for in {settings.workspace}",
            remedy="set RANKLAKE_HOME and SOURCE to a data home that has been run",
        )
    # Where no model was ever kept, MLflow's database would be made for nothing, in 14 s.
    has_models = settings.mlflow_artifacts.parent.exists()
    with run_lock(settings.workspace, what="make care"):
        pins = platform.registry().trained_on() if has_models else {}
        return [
            care_for(
                settings.lake,
                table,
                pins=pins.get(table.name, ()),
                retention=timedelta(days=settings.retention_days),
                dry_run=dry_run,
            )
            for table in ALL_TABLES
            if exists(settings.lake, table)
        ]


@dg.op(description="Join small files and remove old ones; training pins stay.")
def care(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Care for every table and say what was done."""
    for cared in care_for_tables(platform):
        context.log.info("; ".join(describe(cared)))


@dg.job(
    executor_def=dg.in_process_executor,
    description="Join small files of the tables and remove those that no kept version needs.",
)
def table_care() -> None:
    """Care for the tables."""
    care()


weekly_care = dg.ScheduleDefinition(
    name="weekly_care",
    job=table_care,
    cron_schedule="0 4 * * 0",
    description="Sundays at 4:00; off until it is switched on in the web UI.",
)


def describe(cared: "Cared", *, dry_run: bool = False) -> list[str]:
    """Return lines on one table: what was done, and its last operations."""
    state = cared.state
    pins = f", pinned {_numbers(cared.pinned)}" if cared.pinned else ""
    lost = f", PINS LOST {_numbers(cared.lost_pins)}" if cared.lost_pins else ""
    verb = "would remove" if dry_run else f"joined {cared.joined_files} files, removed"
    missing = f", {state.without_statistics} without statistics" if state.without_statistics else ""
    head = (
        f"{cared.table}: {verb} {cared.removed_files} files of {cared.removed_bytes:,} bytes"
        f"{pins}{lost}; version {state.version}, {state.rows:,} rows in {state.files} files"
        f"{missing} of {state.bytes:,} bytes"
    )
    return [
        head,
        *(
            f"  {each.version:>5}  {each.when:%Y-%m-%d %H:%M}  {each.name}: {each.rows:,} rows"
            for each in state.operations
        ),
    ]


def _numbers(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))


def main() -> int:
    """Care for the tables of the data home; return 0, or 2 if that cannot be done."""
    dry_run = "--dry-run" in sys.argv[1:]
    try:
        found = care_for_tables(Platform(), dry_run=dry_run)
    except UserError as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2
    lines = [line for cared in found for line in describe(cared, dry_run=dry_run)]
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
