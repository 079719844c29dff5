"""The job of a day: its event tables, counters, cuts and segments, and a schedule that is off."""

import subprocess
import sys

import dagster as dg

daily_tables = dg.define_asset_job(
    "daily_tables",
    selection=dg.AssetSelection.assets(
        "raw_events",
        "rejected_events",
        "interactions",
        "item_days",
        "item_versions",
        "items",
        "item_counters",
        "percentile_cuts",
        "sequence_events",
    ),
    executor_def=dg.in_process_executor,
    description="A range of days from raw log to the segments of the sequences, with all checks.",
)


@dg.op(description="Take in the days that are new or have changed, as `make update` does.")
def take_in_new_days(context: dg.OpExecutionContext) -> None:
    """Run the update in a process of its own: a process reads the source's range once."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.update"], capture_output=True, text=True, check=False
    )
    context.log.info(done.stdout)
    if done.returncode != 0:
        raise dg.Failure(done.stderr.strip().splitlines()[-1] if done.stderr else "update failed")


@dg.job(
    executor_def=dg.in_process_executor,
    description="Take in the days of the log that are new or have changed.",
)
def update() -> None:
    """Take in new days."""
    take_in_new_days()


daily_update = dg.ScheduleDefinition(
    name="daily_update",
    job=update,
    cron_schedule="0 3 * * *",
    description="Every day at 3:00; off until it is switched on in the web UI.",
)
