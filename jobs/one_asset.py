"""Materialise one asset by its own job, with the tables before it where one is missing."""

from typing import TYPE_CHECKING, Any

from infra.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from pipelines.contract import Table


def materialise_asset(
    settings: Settings,
    asset: str,
    *,
    job: str,
    tables: tuple["Table", ...],
    config: dict[str, Any],
) -> "dg.ExecuteInProcessResult":
    """Execute an asset in this process, alone if its tables are there.

    Args:
        settings: Where the lake is.
        asset: Name of the asset.
        job: Name of the job that makes the asset and what it needs.
        tables: What the asset reads.
        config: Configuration of the asset.
    """
    import dagster as dg

    from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
    from infra.delta_arrow import exists
    from jobs.definitions import defs

    has_tables = all(exists(settings.lake, table) for table in tables)
    keys = EVENT_PARTITIONS.get_partition_keys()
    return defs.resolve_job_def(job).execute_in_process(
        instance=dg.DagsterInstance.get(),
        tags={} if has_tables else {RANGE_START: keys[0], RANGE_END: keys[-1]},
        asset_selection=[dg.AssetKey(asset)] if has_tables else None,
        run_config={"loggers": {"progress": {}}, "ops": {asset: {"config": config}}},
        raise_on_error=False,
    )
