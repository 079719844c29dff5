"""Number the items: the catalogue, and whatever was shown without being in it."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipelines.tables import ITEMS

_CATALOGUE = ("created_time", "author_id", "tags", "text", "duration_ms", "features")


def build_items(catalogue: DataFrame, item_days: DataFrame) -> DataFrame:
    """Build one row per item of the catalogue or of the log.

    `item_index` counts from 1 in the order of `item_id`, so it is the same for the same set of
    items, however the rows arrive. Of several catalogue rows for one item, the one whose JSON is
    greatest is taken. Only the ids pass through one task, to be numbered.

    Args:
        catalogue: item_id, created_time, author_id, tags, text, duration_ms, features.
        item_days: Rows of `ITEM_DAYS`, all days.

    Returns:
        Rows of `ITEMS`.
    """
    preferred = Window.partitionBy("item_id").orderBy(
        F.to_json(F.struct(*_CATALOGUE)).desc_nulls_last()
    )
    described = (
        catalogue.where(F.col("item_id").isNotNull())
        .withColumn("choice", F.row_number().over(preferred))
        .where(F.col("choice") == 1)
        .select("item_id", *_CATALOGUE)
    )
    seen = item_days.groupBy("item_id").agg(F.min("first_event_time").alias("first_seen_time"))
    everything = described.join(seen, on="item_id", how="full")
    index = F.row_number().over(Window.orderBy("item_id"))
    numbered = everything.select("item_id").withColumn("item_index", index)
    return everything.join(numbered, on="item_id", how="inner").select(*ITEMS.column_names)
