"""What is known about each event when it happens: the item's numbers of that day, and indices."""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.item_numbers import item_numbers, mean_rates
from pipelines.percentile_cuts import assign_percentiles
from pipelines.sources.manifest import SourceManifest

_PERCENTILES = ("popularity", "rate")
DAY_NUMBERS = (
    "age_bucket",
    "popularity_percentile",
    "rate_percentile",
    "item_impressions_7d",
    "item_positives_7d",
)
CLOCK = ("local_hour", "local_weekday")
EVENT_FEATURES = ("surface_index", *DAY_NUMBERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureInputs:
    """Group the tables that say what was known of an item when a day began.

    Attributes:
        versions: The item_versions table.
        item_days: The item_days table.
        counters: The item_counters table, at least the days asked for.
        cuts: The percentile_cuts table, at least the days asked for.
    """

    versions: DataFrame
    item_days: DataFrame
    counters: DataFrame
    cuts: DataFrame


def add_event_features(
    events: DataFrame, *, inputs: FeatureInputs, manifest: SourceManifest
) -> DataFrame:
    """Add `EVENT_FEATURES` to events, from the days strictly before each event's day.

    Args:
        events: Rows with item_id, event_date, surface and the columns of `CLOCK`.
        inputs: The tables to join.
        manifest: The source's manifest.

    Returns:
        The rows with surface_index and the item's numbers of the day; whatever is unknown is 0.
        The wall-clock columns are -1 in all rows of a source without dates.
    """
    numbers = item_numbers(
        inputs.counters,
        rates=mean_rates(inputs.item_days, manifest=manifest),
        versions=inputs.versions,
        manifest=manifest,
    )
    daily = assign_percentiles(numbers, inputs.cuts, features=_PERCENTILES)
    joined = events.join(
        daily.select("item_id", "event_date", *DAY_NUMBERS),
        on=["item_id", "event_date"],
        how="left",
    )
    unknown_as_zero = {name: F.coalesce(name, F.lit(0)) for name in DAY_NUMBERS}
    clock = {} if manifest.has_dates else {name: F.lit(-1) for name in CLOCK}
    surface = {"surface_index": surface_index(F.col("surface"), manifest=manifest)}
    return joined.withColumns(unknown_as_zero | clock | surface)


def surface_index(surface: Column, *, manifest: SourceManifest) -> Column:
    """Return the place of a surface in the manifest, from 1; 0 where it is null or not listed."""
    if not manifest.surfaces:
        return F.lit(0)
    known = F.array(*(F.lit(name) for name in manifest.surfaces))
    return F.coalesce(F.array_position(known, surface), F.lit(0)).cast("int")
