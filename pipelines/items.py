"""Number the items and describe them: as they changed, and as they are at the end of the log."""

from datetime import UTC

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.daypart import end_of_day
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEMS
from pipelines.version_tables import ITEM_VERSIONS
from pipelines.versions import SINCE_EVER, build_versions, moment_since, says_anything

_CATALOGUE = ("created_time", "author_id", "tags", "text", "duration_ms", "features")
_WORDS = ("author_id", "tags", "text", "duration_ms", "features")


def build_item_versions(
    catalogue: DataFrame, item_days: DataFrame, *, manifest: SourceManifest
) -> DataFrame:
    """Build the versions of every item of the catalogue or of the log.

    `item_index` counts from 1 in the order of `item_id`, so it is the same for the same set of
    items, however the rows arrive. Only the ids pass through one task, to be numbered.

    `is_identity` marks the version that the item's semantic ID, its text and its static features
    are made from: the first that describes it, whatever is said of it later. Of an item that was
    shown before the validation split but not described by then it is the one that says nothing,
    so that no text of the evaluated period is in an ID of the training period.

    Args:
        catalogue: item_id, created_time, author_id, tags, text, duration_ms, features, and
            valid_from where the source has one (versions.py).
        item_days: Rows of `ITEM_DAYS`, all days.
        manifest: The source's manifest.

    Returns:
        Rows of `ITEM_VERSIONS`.
    """
    listed = catalogue.select("item_id").where(F.col("item_id").isNotNull()).distinct()
    index = F.row_number().over(Window.orderBy("item_id"))
    numbered = listed.join(_first_seen(item_days), on="item_id", how="full").withColumn(
        "item_index", index
    )
    versions = build_versions(catalogue, numbered, key="item_id", attributes=_CATALOGUE)
    return (
        versions.join(numbered, on="item_id", how="inner")
        .withColumn("words_since", described_since(versions))
        .withColumn("is_identity", moment_since() == _identity_since(manifest))
        .select(*ITEM_VERSIONS.column_names)
    )


def build_items(
    versions: DataFrame, item_days: DataFrame, *, manifest: SourceManifest
) -> DataFrame:
    """Build one row per item, with its attributes as of the end of the log.

    Args:
        versions: Rows of `ITEM_VERSIONS`.
        item_days: Rows of `ITEM_DAYS`, all days.
        manifest: The source's manifest.

    Returns:
        Rows of `ITEMS`.
    """
    current = versions.where(is_current(manifest))
    seen = current.join(_first_seen(item_days), on="item_id", how="left")
    return seen.select(*ITEMS.column_names)


def is_current(manifest: SourceManifest) -> Column:
    """Return whether a version is the one valid at the end of the log."""
    end = F.lit(end_of_day(manifest.end_date, zone=manifest.timezone).astimezone(UTC))
    begun = F.coalesce(F.col("valid_from") < end, F.lit(True))
    return begun & F.coalesce(F.col("valid_to") >= end, F.lit(True))


def described_since(versions: DataFrame) -> Column:
    """Return the moment from which an item is described by any words, null if it never is."""
    described = F.when(says_anything(versions, attributes=_WORDS), moment_since())
    return F.min(described).over(Window.partitionBy("item_id"))


def _identity_since(manifest: SourceManifest) -> Column:
    boundary = F.lit(manifest.validation_start)
    was_shown = F.coalesce(F.col("first_seen_time") < boundary, F.lit(False))
    is_late = was_shown & (F.col("words_since") >= F.unix_micros(boundary))
    since = F.when(~is_late, F.col("words_since"))
    return F.coalesce(since, F.lit(SINCE_EVER))


def _first_seen(item_days: DataFrame) -> DataFrame:
    return item_days.groupBy("item_id").agg(F.min("first_event_time").alias("first_seen_time"))
