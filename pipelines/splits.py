"""Train, validation and test by time: where the splits begin and which one a moment falls in."""

from datetime import UTC, datetime

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.sources.manifest import SourceManifest

SPLITS = ("train", "validation", "test")


def instant(moment: datetime) -> Column:
    """Return a time of the manifest as a literal; a time without a zone is UTC."""
    return F.lit(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def split_of(time: Column, *, manifest: SourceManifest) -> Column:
    """Name the split that a time falls in; a split holds its start and not its end.

    Args:
        time: Timestamp column; null (undated history) counts as train.
        manifest: The source's manifest.

    Returns:
        A string column: train, validation or test.
    """
    return (
        F.when(time >= instant(manifest.test_start), "test")
        .when(time >= instant(manifest.validation_start), "validation")
        .otherwise("train")
    )
