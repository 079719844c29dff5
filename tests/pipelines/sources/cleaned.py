"""Read a source whole and clean it: what the tests of all adapters do with their fixtures."""

from types import ModuleType

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.cleaning import judge_raw
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS


def read_events(
    spark: SparkSession, source: ModuleType, path: str
) -> tuple[SourceManifest, list[Row]]:
    """Return the manifest and every raw row of a small source, by time, user and item."""
    manifest = source.describe(spark, path, {})
    frame = source.events(
        spark, path, manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    assert frame.schema.simpleString() == RAW_EVENTS.schema.simpleString()
    return manifest, frame.sort("event_time", "user_id", "item_id").collect()


def cleaning_counts(
    spark: SparkSession, source: ModuleType, path: str, manifest: SourceManifest
) -> dict[str, int]:
    """Return how many raw rows are kept ("kept") or rejected, by reason."""
    raw = source.events(spark, path, manifest, {}, start=manifest.start_date, end=manifest.end_date)
    items = source.items(spark, path, manifest, {}).select("item_id")
    judged = judge_raw(raw, items=items, manifest=manifest)
    counted = judged.groupBy("reason").agg(F.count(F.lit(1)).alias("number")).collect()
    return {row["reason"] or "kept": row["number"] for row in counted}
