"""Days are corrected only where their rows differ, in one commit."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.changed_days import Correction, correct_days
from infra.lakehouse import Lakehouse
from pipelines.tables import ITEM_COUNTERS, ITEMS
from tests.pipelines.log_rows import counter, counter_log, march


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Lakehouse:
    """Return a lake whose counters hold the days 1 to 5 of March 2024."""
    lake = Lakehouse(tmp_path, spark)
    rows = counter_log(spark, *(counter("a", day, day, 0) for day in range(1, 6)))
    lake.overwrite_partition(ITEM_COUNTERS, rows, start=march(1), end=march(5))
    return lake


def _numbers(frame: DataFrame) -> dict[date, list[int]]:
    found: dict[date, list[int]] = {}
    for row in frame.orderBy("impressions_before").collect():
        found.setdefault(row.event_date, []).append(row.impressions_before)
    return found


def test_writes_the_span_of_days_that_differ(spark: SparkSession, lake: Lakehouse) -> None:
    before = lake.version(ITEM_COUNTERS)
    wanted = counter_log(
        spark,
        counter("a", 1, 100, 0),  # outside the range: left as it is
        counter("a", 2, 2, 0),
        counter("a", 3, 30, 0),
        counter("b", 3, 1, 0),
        counter("a", 5, 5, 0),  # day 4 has no rows any more
    )
    done = correct_days(lake, ITEM_COUNTERS, wanted, start=march(2), end=march(31))
    assert done.days == (march(3), march(4))
    assert done.commit is not None and done.commit.version == before + 1
    assert _numbers(lake.read(ITEM_COUNTERS)) == {
        march(1): [1],
        march(2): [2],
        march(3): [1, 30],
        march(5): [5],
    }


def test_makes_no_version_where_nothing_differs(spark: SparkSession, lake: Lakehouse) -> None:
    before = lake.version(ITEM_COUNTERS)
    same = lake.read(ITEM_COUNTERS)
    assert correct_days(lake, ITEM_COUNTERS, same, start=march(1), end=march(31)) == Correction()
    assert correct_days(lake, ITEM_COUNTERS, same, start=march(2), end=march(1)) == Correction()
    assert lake.version(ITEM_COUNTERS) == before


def test_a_table_that_is_not_written_yet_has_nothing_to_correct(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = counter_log(spark, counter("a", 1, 1, 0))
    lake = Lakehouse(tmp_path, spark)
    assert correct_days(lake, ITEM_COUNTERS, rows, start=march(1), end=march(2)) == Correction()
    assert not lake.exists(ITEM_COUNTERS)


def test_refuses_a_table_without_days(spark: SparkSession, lake: Lakehouse) -> None:
    with pytest.raises(ValueError, match="no partition column"):
        correct_days(lake, ITEMS, spark.range(1), start=march(1), end=march(2))
