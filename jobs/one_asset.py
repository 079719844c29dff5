"""Materialise one asset by its own job, with the tables before it where one is missing."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.errors import UserError
from infra.full_disk import WHOLE, told_if_full
from infra.run_lock import run_lock
from infra.settings import Settings
from jobs.run import freeze_manifest, prepare_dagster_home
from pipelines.sources.errors import SourceError

if TYPE_CHECKING:
    import dagster as dg

    from pipelines.contract import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetCall:
    """Say which asset a command makes.

    Attributes:
        command: What the user typed, such as `make search`.
        asset: Name of the asset.
        job: Name of the job that makes the asset and what it needs.
        tables: What the asset reads.
        config: Configuration of the asset.
        settings: Where the lake is.
    """

    command: str
    asset: str
    job: str
    tables: tuple["Table", ...]
    config: dict[str, Any]
    settings: Settings


def asset_command(read: Callable[[], AssetCall], show: Callable[[AssetCall], None]) -> int:
    """Do what a command asks; return 0, 1 if a step failed, 2 on bad input.

    Args:
        read: Reads arguments and settings.
        show: Prints what the asset kept.
    """
    try:
        call = read()
        settings = call.settings
        with (
            told_if_full(settings.home, state=WHOLE),
            run_lock(settings.workspace, what=call.command),
        ):
            prepare_dagster_home(settings)
            sys.stdout.write(f"ranklake: source {settings.source}, data home {settings.home}\n")
            sys.stdout.flush()
            freeze_manifest(settings)
            result = materialise_asset(call)
            if result.success:
                show(call)
                return 0
            from jobs.closing import failure_of

            sys.stderr.write(f"ranklake: {failure_of(result)}\n")
            return 1
    except (UserError, SourceError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2


def materialise_asset(call: AssetCall) -> "dg.ExecuteInProcessResult":
    """Execute an asset in this process, alone if its tables are there."""
    import dagster as dg

    from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
    from infra.delta_arrow import exists
    from jobs.definitions import defs

    has_tables = all(exists(call.settings.lake, table) for table in call.tables)
    keys = EVENT_PARTITIONS.get_partition_keys()
    return defs.resolve_job_def(call.job).execute_in_process(
        instance=dg.DagsterInstance.get(),
        tags={} if has_tables else {RANGE_START: keys[0], RANGE_END: keys[-1]},
        asset_selection=[dg.AssetKey(call.asset)] if has_tables else None,
        run_config={"loggers": {"progress": {}}, "ops": {call.asset: {"config": call.config}}},
        raise_on_error=False,
    )
