"""Partitions of the event tables: the days (or months) of the source's range, one run for many."""

from datetime import date, timedelta

import dagster as dg

from infra.settings import Settings
from pipelines.sources.manifest import SourceManifest

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
_PARTITION = "dagster/partition"
SINGLE_RUN = dg.BackfillPolicy.single_run()


def event_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Return the partitions of the data home's source.

    The range comes from the manifest that the first run froze; before that run it is the range
    of the default simulated feed, so that the graph loads on an empty data home.
    """
    manifest = settings.load_manifest()
    if manifest is None:
        start, end, unit = settings.feed_start, settings.feed_end, "day"
    else:
        start, end, unit = manifest.start_date, manifest.end_date, manifest.partition_unit
    if unit == "month":
        return dg.MonthlyPartitionsDefinition(
            start_date=start.replace(day=1).isoformat(), end_date=_next_month(end).isoformat()
        )
    return dg.DailyPartitionsDefinition(
        start_date=start.isoformat(), end_date=(end + timedelta(days=1)).isoformat()
    )


def day_range(context: dg.AssetExecutionContext, manifest: SourceManifest) -> tuple[date, date]:
    """Return the first and last local day, inclusive, that the run's partitions cover."""
    keys = context.partition_key_range
    return _days(keys.start, keys.end, manifest)


def checked_days(
    context: dg.AssetCheckExecutionContext, manifest: SourceManifest
) -> tuple[date, date]:
    """Return the first and last local day, inclusive, that a check of the run looks at.

    A run of no partitions, as a check that is executed alone, looks at all days.
    """
    tags = context.run.tags
    if (key := tags.get(_PARTITION)) is not None:
        return _days(key, key, manifest)
    if (first := tags.get(RANGE_START)) is not None:
        return _days(first, tags[RANGE_END], manifest)
    return manifest.start_date, manifest.end_date


def _days(first_key: str, last_key: str, manifest: SourceManifest) -> tuple[date, date]:
    start, last = date.fromisoformat(first_key), date.fromisoformat(last_key)
    if manifest.partition_unit == "month":
        last = _next_month(last) - timedelta(days=1)
    return max(start, manifest.start_date), min(last, manifest.end_date)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


EVENT_PARTITIONS = event_partitions(Settings.from_env())
