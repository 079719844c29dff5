"""Run the tables of days as the assets do, without Dagster around them."""

from datetime import date

from pyspark.sql import DataFrame

from assets.day_steps import (
    refresh_interactions,
    refresh_item_counters,
    refresh_item_days,
    refresh_percentile_cuts,
    refresh_sequence_events,
)
from infra.lakehouse import Lakehouse
from pipelines.contract import Table
from pipelines.items import build_item_versions, build_items
from pipelines.refits import CutRefit
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEMS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEQUENCE_EVENTS,
)
from pipelines.version_tables import ITEM_VERSIONS

DAY_TABLES = (
    RAW_EVENTS,
    REJECTED_EVENTS,
    INTERACTIONS,
    ITEM_DAYS,
    ITEM_COUNTERS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
)


def run_days(
    house: Lakehouse,
    manifest: SourceManifest,
    *,
    raw: DataFrame,
    catalogue: DataFrame,
    days: tuple[date, date],
    refits: tuple[CutRefit, ...] = (),
) -> None:
    """Write a range of days, some of which may have no raw row."""
    start, end = days
    house.overwrite_partition(RAW_EVENTS, raw, start=start, end=end)
    known = catalogue.select("item_id")
    refresh_interactions(house, manifest, items=known, start=start, end=end)
    refresh_item_days(house, manifest, start=start, end=end)
    item_days = house.read(ITEM_DAYS)
    versions = build_item_versions(catalogue, item_days, manifest=manifest)
    house.overwrite(ITEM_VERSIONS, versions)
    versions = house.read(ITEM_VERSIONS)
    house.overwrite(ITEMS, build_items(versions, item_days, manifest=manifest))
    refresh_item_counters(house, manifest, start=start, end=end)
    refresh_percentile_cuts(house, manifest, start=start, end=end, refits=refits)
    refresh_sequence_events(house, manifest, start=start, end=end)


def rows_of(house: Lakehouse, table: Table) -> list[str]:
    """Return a table's rows in one order, each as text with every value."""
    return sorted(map(repr, house.read(table).coalesce(1).collect()))
