"""The command line: materialise the whole graph on one source and print what came of it."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError
from infra.full_disk import WHOLE, told_if_full
from infra.run_lock import run_lock
from infra.settings import Settings
from pipelines.sources.errors import SourceError

if TYPE_CHECKING:
    import dagster as dg

_DAGSTER_YAML = "telemetry:\n  enabled: false\nconcurrency:\n  pools:\n    granularity: run\n"
# What earlier versions wrote; a file that somebody has changed is left alone.
_FORMER_YAML = ("telemetry:\n  enabled: false\n",)


def main() -> int:
    """Run everything; return 0, 1 if a step failed, or 2 if the input cannot be used."""
    try:
        settings = Settings.from_env()
        with (
            told_if_full(settings.home, state=WHOLE),
            run_lock(settings.workspace, what="make run"),
        ):
            return _run(settings, only_prepare="--prepare-only" in sys.argv[1:])
    except (UserError, SourceError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2


def _run(settings: Settings, *, only_prepare: bool) -> int:
    began = time.monotonic()
    prepare_dagster_home(settings)
    place = f", lake {settings.lake}" if settings.lake_root is not None else ""
    _say(f"source {settings.source}, data home {settings.home}{place}")
    freeze_manifest(settings)
    if only_prepare:
        return 0
    from jobs.memory import PeakMemory

    memory = PeakMemory()
    result = materialise_everything()
    from jobs.closing import failure_of, print_closing_table

    if not result.success:
        sys.stderr.write(f"ranklake: {failure_of(result)}\n")
        return 1
    print_closing_table(
        result, settings=settings, seconds=time.monotonic() - began, peak_bytes=memory.stop()
    )
    return 0


def prepare_dagster_home(settings: Settings) -> None:
    """Create Dagster's home, telemetry and newsletter off, and point the process at it.

    Runs that are started from the web UI, by a schedule or as a backfill wait for each other, for
    one takes the memory of a laptop: every step is in a pool of one slot.
    """
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    config = settings.dagster_home / "dagster.yaml"
    if not config.exists() or config.read_text() in _FORMER_YAML:
        config.write_text(_DAGSTER_YAML)
    # Without this file Dagster's newsletter dialog covers the first page of its web UI.
    seen = settings.dagster_home / ".nux" / "nux.yaml"
    seen.parent.mkdir(exist_ok=True)
    seen.write_text("seen: 1\n")
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    _limit_runs()


def _limit_runs() -> None:
    """Give the pool its slot; one that somebody has set stays as it is."""
    import dagster as dg

    from assets.outcomes import MEMORY_POOL

    with dg.DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        if MEMORY_POOL not in {limit.name for limit in storage.get_pool_limits()}:
            storage.set_concurrency_slots(MEMORY_POOL, 1)


def freeze_manifest(settings: Settings) -> None:
    """Describe the source once per data home, before the graph is built from its range.

    Raises:
        UserError: If the source cannot be read, or the home holds another source.
    """
    from infra.platform import Platform

    manifest = Platform().manifest()
    if not manifest.has_dates:
        _say("the source has order and gaps but no dates: split by leave-one-out")
        return
    days = (manifest.end_date - manifest.start_date).days + 1
    _say(f"{days} days, {manifest.start_date} to {manifest.end_date}, zone {manifest.timezone}")


def materialise_everything() -> "dg.ExecuteInProcessResult":
    """Execute the job `everything` in this process over all partitions, as one run."""
    import dagster as dg

    from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
    from jobs.definitions import defs

    keys = EVENT_PARTITIONS.get_partition_keys()
    return defs.resolve_job_def("everything").execute_in_process(
        instance=dg.DagsterInstance.get(),
        tags={RANGE_START: keys[0], RANGE_END: keys[-1]},
        run_config={"loggers": {"progress": {}}},
        raise_on_error=False,
    )


def _say(text: str) -> None:
    sys.stdout.write(f"ranklake: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
