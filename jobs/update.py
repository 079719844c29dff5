"""Take in what a log has gained: `make update [SINCE=<day>]`.

The log is described anew. Days after the last one of the lake are new; days of the week before
it, or since the day that is given, are written again where their raw rows have changed, as they
do when rows come late. No other day is written but for later rows that depend on these.
"""

import argparse
import sys
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError
from infra.full_disk import WHOLE, told_if_full
from infra.pending_days import load_pending, save_pending
from infra.platform import Platform
from infra.run_lock import run_lock
from infra.settings import Settings
from jobs.run import prepare_dagster_home
from pipelines.sources.errors import SourceError
from pipelines.sources.growth import grow
from pipelines.tables import RAW_EVENTS

if TYPE_CHECKING:
    import dagster as dg

    from pipelines.sources.manifest import SourceManifest

LOOK_BACK = timedelta(days=7)


def main(arguments: list[str] | None = None) -> int:
    """Take in new and changed days; return 0, 1 if a step failed, or 2 if it cannot be done."""
    try:
        asked = _parse(sys.argv[1:] if arguments is None else arguments)
        settings = Settings.from_env()
        if settings.load_manifest() is None:
            raise UserError(
                f"the data home {settings.home} holds no tables", remedy="make them with make run"
            )
        with (
            told_if_full(settings.home, state=WHOLE),
            run_lock(settings.workspace, what="make update"),
        ):
            return _update(settings, since=asked)
    except (UserError, SourceError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2


def _update(settings: Settings, *, since: date | None) -> int:
    prepare_dagster_home(settings)
    frozen = Platform().manifest()
    grown = grow(frozen, Platform().describe_source())
    settings.save_manifest(grown)
    if grown != frozen:
        _say(f"the log has grown: it ended on {frozen.end_date} and ends on {grown.end_date}")
    days = {*load_pending(settings.pending_days), *_days_to_write(grown, since=since)}
    save_pending(settings.pending_days, days)
    if not days:
        _say("nothing is new, and nothing has changed")
        return 0
    for first, last in runs_of_days(tuple(sorted(days)), unit=grown.partition_unit):
        _say(f"{first} to {last} ...")
        result = _materialise(first, last, unit=grown.partition_unit)
        if not result.success:
            from jobs.closing import failure_of

            sys.stderr.write(f"ranklake: {failure_of(result)}\n")
            return 1
        days = {day for day in days if not first <= day <= last}
        save_pending(settings.pending_days, days)
    _say("the tables of these days are written; make run trains on them")
    return 0


def runs_of_days(days: tuple[date, ...], *, unit: str) -> list[tuple[date, date]]:
    """Join days to the fewest ranges that hold them and no other partition.

    Args:
        days: Ascending, at least one.
        unit: "day" or "month", what a partition holds.
    """
    starts = sorted({_partition(day, unit) for day in days})
    breaks = [place for place, pair in enumerate(pairwise(starts), 1) if not _adjoin(*pair, unit)]
    bounds = [0, *breaks, len(starts)]
    parts = [starts[low:high] for low, high in pairwise(bounds)]
    return [(part[0], _last_day(part[-1], unit)) for part in parts]


def _days_to_write(manifest: "SourceManifest", *, since: date | None) -> tuple[date, ...]:
    """Return the days that the lake lacks, and those looked at whose raw rows differ."""
    from pyspark.sql import functions as F

    from infra.changed_days import different_days

    platform = Platform()
    lakehouse, end = platform.lakehouse(), manifest.end_date
    written = lakehouse.read(RAW_EVENTS).agg(F.max("event_date")).collect()[0][0]
    start = since or (manifest.start_date if written is None else written - LOOK_BACK)
    start = max(start, manifest.start_date)
    if start > end:
        raise UserError(f"the log ends on {end}, before {start}", remedy="say an earlier SINCE")
    frame = platform.source().events(start, end)
    return different_days(lakehouse, RAW_EVENTS, frame, start=start, end=end)


def _materialise(first: date, last: date, *, unit: str) -> "dg.ExecuteInProcessResult":
    import dagster as dg

    # The graph is loaded here, after the manifest has grown: its partitions come from there.
    from assets.partitions import RANGE_END, RANGE_START
    from jobs.definitions import defs

    return defs.resolve_job_def("daily_tables").execute_in_process(
        instance=dg.DagsterInstance.get(),
        tags={
            RANGE_START: _partition(first, unit).isoformat(),
            RANGE_END: _partition(last, unit).isoformat(),
        },
        run_config={"loggers": {"progress": {}}},
        raise_on_error=False,
    )


def _partition(day: date, unit: str) -> date:
    return day.replace(day=1) if unit == "month" else day


def _adjoin(one: date, other: date, unit: str) -> bool:
    return _last_day(one, unit) + timedelta(days=1) == other


def _last_day(start: date, unit: str) -> date:
    if unit == "month":
        return (start + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    return start


def _parse(arguments: list[str]) -> date | None:
    parser = argparse.ArgumentParser(prog="make update", description=__doc__)
    parser.add_argument("since", nargs="?", default="", help="first day to look at, YYYY-MM-DD")
    text = parser.parse_args(arguments).since
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UserError(
            f"not a day: {error}", remedy="say make update SINCE=<YYYY-MM-DD>"
        ) from error


def _say(text: str) -> None:
    sys.stdout.write(f"ranklake: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
