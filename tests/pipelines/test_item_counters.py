"""Item counters: totals of the days strictly before, against a plain loop, with no future."""

import random
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from pipelines.item_counters import count_items, counters_as_of
from pipelines.item_days import sum_item_days
from pipelines.tables import ITEM_COUNTERS
from tests.pipelines.log_rows import (
    CLICK,
    LIKE,
    LOG,
    interaction_log,
    march,
    shown,
)


def _random_log(seed: int, *, first: int = 1, last: int = 25) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        shown(
            f"{seed}-{n}", chance.choice("abcd"), chance.randint(first, last), chance.randint(0, 3)
        )
        for n in range(200)
    ]


def _item_days(spark: SparkSession, *log: dict[str, Any]) -> DataFrame:
    return sum_item_days(interaction_log(spark, *log), manifest=LOG)


def _by_loop(log: list[dict[str, Any]], item: str, day: Any, days: int) -> tuple[int, list[int]]:
    earliest = day - timedelta(days=days)
    past = [
        row["action_bits"]
        for row in log
        if row["item_id"] == item and earliest <= row["event_date"] < day
    ]
    return len(past), [sum(bits & mask > 0 for bits in past) for mask in (CLICK, LIKE)]


def test_counts_the_days_strictly_before(spark: SparkSession) -> None:
    log = _item_days(
        spark,
        shown("1", "a", 1, CLICK),
        shown("2", "a", 1, CLICK | LIKE),
        shown("3", "a", 2),
        shown("4", "a", 9, LIKE),
        shown("5", "a", 10),
        shown("6", "b", 9, CLICK),
    )
    found = count_items(log, manifest=LOG, start=march(2), end=march(31))
    expected = [
        ("a", march(2), 2, [2, 1], 2, [2, 1], march(1)),
        ("a", march(9), 3, [2, 1], 1, [0, 0], march(1)),
        ("a", march(10), 4, [2, 2], 1, [0, 1], march(1)),
        ("b", march(9), 0, [0, 0], 0, [0, 0], march(9)),
    ]
    assertDataFrameEqual(found, spark.createDataFrame(expected, ITEM_COUNTERS.schema))


def test_equals_a_plain_loop_over_the_events(spark: SparkSession) -> None:
    log = _random_log(1)
    found = count_items(_item_days(spark, *log), manifest=LOG, start=march(1), end=march(31))
    rows = found.collect()
    assert {(row.item_id, row.event_date) for row in rows} == {
        (row["item_id"], row["event_date"]) for row in log
    }
    for row in rows:
        before = _by_loop(log, row.item_id, row.event_date, 10_000)
        assert (row.impressions_before, row.action_counts_before) == before
        week = _by_loop(log, row.item_id, row.event_date, 7)
        assert (row.impressions_7d, row.action_counts_7d) == week


def test_nothing_on_or_after_a_day_changes_its_counts(spark: SparkSession) -> None:
    log = _random_log(2)
    for cut in random.Random(3).sample(range(3, 25), 2):
        past = [row for row in log if row["event_date"] < march(cut)]
        present = [row for row in log if row["event_date"] == march(cut)]
        moved = [{**row, "action_bits": 3 - row["action_bits"]} for row in present]
        moved += _random_log(4, first=cut + 1, last=31)
        options: dict[str, Any] = {"manifest": LOG, "start": march(1), "end": march(cut)}
        found = count_items(_item_days(spark, *log), **options)
        again = count_items(_item_days(spark, *past, *moved), **options)
        assertDataFrameEqual(again, found)


def test_one_day_again_gives_the_same_rows(spark: SparkSession) -> None:
    log = _item_days(spark, *_random_log(5))
    whole = count_items(log, manifest=LOG, start=march(1), end=march(31))
    day = count_items(log, manifest=LOG, start=march(20), end=march(20))
    assertDataFrameEqual(day, whole.where(F.col("event_date") == F.lit(march(20))))


def test_a_snapshot_counts_every_item_as_of_a_day(spark: SparkSession) -> None:
    log = _item_days(
        spark,
        shown("1", "a", 1, CLICK),
        shown("2", "a", 8, LIKE),
        shown("3", "b", 9, CLICK),
        shown("4", "c", 1),
    )
    catalogue = spark.createDataFrame([("a",), ("b",), ("d",)], "item_id string")
    found = counters_as_of(log, manifest=LOG, day=march(9), items=catalogue)
    expected = [
        ("a", march(9), 2, [1, 1], 1, [0, 1], march(1)),
        ("b", march(9), 0, [0, 0], 0, [0, 0], None),
        ("d", march(9), 0, [0, 0], 0, [0, 0], None),
    ]
    assertDataFrameEqual(found, spark.createDataFrame(expected, ITEM_COUNTERS.schema))
    shown_before = counters_as_of(log, manifest=LOG, day=march(9)).collect()
    assert sorted(row.item_id for row in shown_before) == ["a", "c"]


def test_a_snapshot_equals_the_rows_of_its_day(spark: SparkSession) -> None:
    log = _item_days(spark, *_random_log(6))
    of_day = count_items(log, manifest=LOG, start=march(20), end=march(20))
    items = of_day.select("item_id")
    snapshot = counters_as_of(log, manifest=LOG, day=march(20), items=items)
    assertDataFrameEqual(snapshot.drop("first_shown_date"), of_day.drop("first_shown_date"))


def test_an_empty_log_gives_no_counters(spark: SparkSession) -> None:
    empty = spark.createDataFrame([], ITEM_COUNTERS.schema)
    found = count_items(_item_days(spark), manifest=LOG, start=march(1), end=march(31))
    assertDataFrameEqual(found, empty)
    assertDataFrameEqual(counters_as_of(_item_days(spark), manifest=LOG, day=march(9)), empty)
