"""Whether every raw row was kept or rejected, day by day."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def row_sums(raw: DataFrame, *, rejected: DataFrame, interactions: DataFrame) -> DataFrame:
    """Count each day's raw, rejected and kept rows.

    Args:
        raw: Rows of `RAW_EVENTS`.
        rejected: Rows of `REJECTED_EVENTS`.
        interactions: Rows of `INTERACTIONS`; `num_source_rows` says how many each merged.

    Returns:
        event_date, raw, rejected and kept, one row per day of any of them.
    """
    counted = (
        raw.select("event_date", F.lit(1).alias("raw"), _zero("rejected"), _zero("kept"))
        .unionByName(
            rejected.select("event_date", _zero("raw"), F.lit(1).alias("rejected"), _zero("kept"))
        )
        .unionByName(
            interactions.select(
                "event_date",
                _zero("raw"),
                _zero("rejected"),
                F.col("num_source_rows").alias("kept"),
            )
        )
    )
    sums = [F.sum(name).alias(name) for name in ("raw", "rejected", "kept")]
    return counted.groupBy("event_date").agg(*sums).select("event_date", "raw", "rejected", "kept")


def _zero(name: str):
    return F.lit(0).alias(name)
