"""An item's numbers on a day: age bucket, popularity, smoothed rate and duration."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from pipelines.item_numbers import age_bucket, item_numbers, mean_rates
from pipelines.version_tables import ITEM_VERSIONS
from tests.pipelines.log_rows import (
    BERLIN,
    LOG,
    counter,
    counter_log,
    item_day,
    item_day_log,
    item_table,
    march,
    utc,
)
from tests.pipelines.version_rows import since_ever

_SCHEMA = (
    "item_id string, event_date date, age_bucket int, popularity long, rate long, duration long, "
    "item_impressions_7d long, item_positives_7d long"
)


def _buckets(spark: SparkSession, *rows: tuple, zone: str = "UTC") -> list[int]:
    frame = spark.createDataFrame(
        [(place, *row) for place, row in enumerate(rows)],
        "place int, day date, created timestamp, seen date",
    )
    bucket = age_bucket(
        F.col("day"), created_time=F.col("created"), first_shown_date=F.col("seen"), zone=zone
    )
    return [row[0] for row in frame.orderBy("place").select(bucket).collect()]


def test_age_buckets_begin_after_1_3_7_and_30_days(spark: SparkSession) -> None:
    created = utc("01 23:59")
    days = [2, 3, 4, 7, 8, 30, 31]
    late = [(march(day), created, None) for day in days]
    same_day = (march(1), created, None)
    assert _buckets(spark, same_day, *late) == [1, 2, 2, 3, 3, 4, 4, 5]


def test_an_age_without_a_creation_time_counts_from_the_first_impression(
    spark: SparkSession,
) -> None:
    rows = [
        (march(9), None, march(5)),
        (march(9), utc("09 00:00"), march(5)),
        (march(9), None, march(9)),
        (march(9), None, march(20)),
        (march(9), None, None),
        (march(9), utc("10 00:00"), None),
    ]
    assert _buckets(spark, *rows) == [3, 1, 1, 1, 1, 0]


def test_age_is_in_days_of_the_zone(spark: SparkSession) -> None:
    row = (march(2), utc("01 23:30"), None)
    assert _buckets(spark, row) == [2]
    assert _buckets(spark, row, zone="Europe/Berlin") == [1]


def _numbers(
    spark: SparkSession,
    *rows: dict[str, Any],
    items: DataFrame | None = None,
    days: tuple[dict[str, Any], ...] = (),
) -> DataFrame:
    table = item_table(spark) if items is None else items
    rates = mean_rates(item_day_log(spark, *days), manifest=LOG)
    versions = since_ever(table, ITEM_VERSIONS)
    return item_numbers(counter_log(spark, *rows), rates=rates, versions=versions, manifest=LOG)


def test_describes_items_on_days(spark: SparkSession) -> None:
    items = item_table(
        spark,
        {"item_id": "a", "created_time": datetime(2024, 1, 1, tzinfo=UTC), "duration_ms": 900},
        {"item_id": "b", "first_seen_time": utc("02 10:00")},
    )
    found = _numbers(
        spark,
        counter("a", 1, 0, 0),
        counter("a", 2, 60, 6),
        counter("b", 2, 0, 0),
        counter("a", 3, 80, 10, impressions_7d=20, action_counts_7d=[4, 9]),
        counter("b", 3, 20, 10, first_shown_date=march(2)),
        items=items,
        days=(item_day("a", 2, 30, 2), item_day("b", 2, 10, 2)),
    )
    rows = [
        ("a", march(1), 5, 0, None, 900, 0, 0),
        ("a", march(2), 5, 60, 100, 900, 60, 6),  # no mean rate yet: 6 / 60
        ("b", march(2), 1, 0, None, None, 0, 0),
        ("a", march(3), 5, 20, 120, 900, 20, 4),  # rate (10 + 20 * 0.1) / (80 + 20)
        ("b", march(3), 2, 20, 300, None, 20, 10),  # (10 + 20 * 0.1) / (20 + 20)
    ]
    assertDataFrameEqual(found, spark.createDataFrame(rows, _SCHEMA))


def _rates(spark: SparkSession, *days: dict[str, Any]) -> dict[date, float]:
    found = mean_rates(item_day_log(spark, *days), manifest=LOG).collect()
    return {row.event_date: row.mean_rate for row in found}


def test_the_mean_rate_is_over_the_28_days_strictly_before(spark: SparkSession) -> None:
    rates = _rates(
        spark, item_day("a", 1, 10, 10), item_day("b", 2, 20, 5), item_day("a", 28, 5, 0)
    )
    assert march(1) not in rates
    assert (rates[march(2)], rates[march(3)]) == (1.0, 0.5)
    assert (rates[march(29)], rates[march(30)]) == (15 / 35, 5 / 25)
    assert rates[march(31)] == 0.0


def test_the_mean_rate_counts_a_late_row_on_the_days_after_its_arrival(spark: SparkSession) -> None:
    rates = _rates(spark, item_day("a", 1, 10, 0), item_day("a", 1, 10, 10, arrived=4))
    assert [rates[march(day)] for day in (2, 3, 4, 5)] == [0.0, 0.0, 0.0, 0.5]


def test_no_counters_give_no_numbers(spark: SparkSession) -> None:
    assertDataFrameEqual(_numbers(spark), spark.createDataFrame([], _SCHEMA))


def test_without_dates_all_but_the_duration_is_unknown(spark: SparkSession) -> None:
    items = item_table(
        spark, {"item_id": "a", "first_seen_time": utc("01 10:00"), "duration_ms": 9}
    )
    counters = counter_log(spark, counter("a", 3, 80, 10, impressions_7d=20))
    undated = replace(LOG, has_dates=False)
    found = item_numbers(
        counters,
        rates=mean_rates(item_day_log(spark), manifest=undated),
        versions=since_ever(items, ITEM_VERSIONS),
        manifest=undated,
    )
    expected = [("a", march(3), 0, None, None, 9, 0, 0)]
    assertDataFrameEqual(found, spark.createDataFrame(expected, _SCHEMA))


def test_an_unknown_item_keeps_its_row_and_columns_beyond_the_counters_stay(
    spark: SparkSession,
) -> None:
    counters = counter_log(spark, counter("z", 5, 3, 3)).withColumn("note", F.lit("kept"))
    rates = mean_rates(item_day_log(spark), manifest=BERLIN)
    versions = since_ever(item_table(spark), ITEM_VERSIONS)
    found = item_numbers(counters, rates=rates, versions=versions, manifest=BERLIN)
    expected = [("z", march(5), 1, 3, 1000, None, 3, 3, "kept")]
    wanted = spark.createDataFrame(expected, f"{_SCHEMA}, note string")
    assertDataFrameEqual(found, wanted)
