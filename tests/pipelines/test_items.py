"""Items: dense, deterministic indices over the catalogue and the log."""

import random
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.testing import assertDataFrameEqual

from pipelines.item_days import sum_item_days
from pipelines.items import build_item_versions, build_items
from pipelines.tables import ITEMS
from tests.pipelines.log_rows import LOG, interaction_log, item_table, shown, utc

_CATALOGUE = (
    "item_id string, created_time timestamp, author_id string, tags array<string>, "
    "text string, duration_ms long, features map<string, string>"
)
_NAMES = ("item_id", "created_time", "author_id", "tags", "text", "duration_ms", "features")


def _item_days(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    return sum_item_days(interaction_log(spark, *rows), manifest=LOG)


def _catalogue(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    return spark.createDataFrame(
        [tuple(row.get(name) for name in _NAMES) for row in rows], _CATALOGUE
    )


def _items(catalogue: DataFrame, item_days: DataFrame) -> DataFrame:
    versions = build_item_versions(catalogue, item_days, manifest=LOG)
    return build_items(versions, item_days, manifest=LOG)


def test_catalogue_and_log_make_one_numbered_table(spark: SparkSession) -> None:
    described = {
        "item_id": "b",
        "created_time": datetime(2024, 2, 1, tzinfo=UTC),
        "author_id": "w",
        "tags": ["x", "y"],
        "text": "words",
        "duration_ms": 5,
        "features": {"colour": "red"},
    }
    log = _item_days(spark, shown("1", "b", 7), shown("2", "b", 5), shown("3", "a", 6))
    found = _items(_catalogue(spark, {"item_id": "c"}, described, {"item_id": None}), log)
    expected = item_table(
        spark,
        {"item_id": "a", "first_seen_time": utc("06 12:00")},
        {**described, "first_seen_time": utc("05 12:00")},
        {"item_id": "c"},
    )
    assertDataFrameEqual(found, expected)


def test_indices_do_not_depend_on_the_order_of_the_rows(spark: SparkSession) -> None:
    names = [str(number) for number in range(40)]
    rows = [{"item_id": name} for name in random.Random(5).sample(names, 30)]
    log = _item_days(spark, *(shown(name, name, 5) for name in names[::-1]))
    found = _items(_catalogue(spark, *rows), log).collect()
    assert {row.item_id: row.item_index for row in found} == {
        name: place for place, name in enumerate(sorted(names), start=1)
    }


def test_of_two_catalogue_rows_one_is_taken_whatever_their_order(spark: SparkSession) -> None:
    rows = [{"item_id": "a", "text": "one"}, {"item_id": "a", "text": "two"}]
    log = _item_days(spark)
    for order in (rows, rows[::-1]):
        found = _items(_catalogue(spark, *order), log).collect()
        assert [(row.item_id, row.item_index, row.text) for row in found] == [("a", 1, "two")]


def test_no_catalogue_and_no_log_give_no_items(spark: SparkSession) -> None:
    found = _items(_catalogue(spark), _item_days(spark))
    assertDataFrameEqual(found, spark.createDataFrame([], ITEMS.schema))
