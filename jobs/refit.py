"""Fit percentile cuts again with what has arrived since: `make refit FROM=... TO=... WHY=...`.

Cuts are frozen as of the morning of their day. A re-fit is written into the log of re-fits first,
so that a rebuild over the same arrivals gives the same cuts, and then the cuts are fitted.
"""

import argparse
import sys
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from assets.day_steps import refresh_percentile_cuts, refresh_sequence_events
from infra.errors import UserError
from infra.platform import Platform
from infra.refit_log import append_refit, load_refits
from infra.run_lock import run_lock
from infra.settings import Settings
from pipelines.refits import CutRefit
from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_DAYS, SEQUENCE_EVENTS


def main(arguments: list[str] | None = None) -> int:
    """Re-fit a range of days; return 0, or 2 if it cannot be done as asked."""
    try:
        return _refit(_parse(sys.argv[1:] if arguments is None else arguments))
    except (UserError, SourceError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2


def new_refit(
    manifest: SourceManifest, *, first_day: str, last_day: str, why: str, now: datetime
) -> CutRefit:
    """Check what was asked for.

    Args:
        manifest: The source's description.
        first_day: First day, ISO 8601.
        last_day: Last day, inclusive.
        why: The reason; not blank.
        now: The present. Rows that arrived before today, in the source's zone, are counted, so
            that what still arrives today cannot change the result.

    Raises:
        UserError: If a day cannot be read or lies outside the log, or no reason is given.
    """
    remedy = "say make refit FROM=<day> TO=<day> WHY=<reason>, days as YYYY-MM-DD"
    try:
        first, last = date.fromisoformat(first_day), date.fromisoformat(last_day or first_day)
    except ValueError as error:
        raise UserError(f"not a day: {error}", remedy=remedy) from error
    if not why.strip():
        raise UserError("a re-fit needs a reason: it changes what models were fed", remedy=remedy)
    if not manifest.start_date <= first <= last <= manifest.end_date:
        raise UserError(
            f"the days {first} to {last} are not a range within the log's "
            f"{manifest.start_date} to {manifest.end_date}",
            remedy=remedy,
        )
    today = now.astimezone(ZoneInfo(manifest.timezone)).date()
    try:
        return CutRefit(
            first_day=first, last_day=last, arrived_before=today, requested_at=now, why=why.strip()
        )
    except ValueError as error:
        raise UserError(str(error), remedy="wait until the days are over") from error


def _refit(asked: argparse.Namespace) -> int:
    platform = Platform()
    settings = Settings.from_env()
    found = settings.load_manifest()
    if found is None:
        raise UserError(
            f"the data home {settings.home} holds no tables", remedy="make them with make run"
        )
    with run_lock(settings.workspace, what="make refit"):
        return _write_refit(platform, found, asked)


def _write_refit(platform: Platform, found: SourceManifest, asked: argparse.Namespace) -> int:
    settings, lakehouse = platform.settings(), platform.lakehouse()
    lakehouse.version(ITEM_DAYS)
    refit = new_refit(
        found,
        first_day=asked.first_day,
        last_day=asked.last_day,
        why=asked.why,
        now=datetime.now(UTC),
    )
    append_refit(settings, refit)
    commit, _ = refresh_percentile_cuts(
        lakehouse,
        found,
        start=refit.first_day,
        end=refit.last_day,
        refits=load_refits(settings),
    )
    if lakehouse.exists(SEQUENCE_EVENTS):
        refresh_sequence_events(lakehouse, found, start=refit.first_day, end=refit.last_day)
    sys.stdout.write(
        f"ranklake: cuts of {refit.first_day} to {refit.last_day} fitted with what arrived before "
        f"{refit.arrived_before}: version {commit.version} of percentile_cuts\n"
        "ranklake: materialise sequences and item_prompts again to use them\n"
    )
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make refit", description=__doc__)
    parser.add_argument("first_day", help="first day, YYYY-MM-DD")
    parser.add_argument("last_day", help="last day, inclusive; empty for the first day alone")
    parser.add_argument("why", help="the reason")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
