"""Percentile cuts: the oracle, bounds, monotonicity, windows and versions."""

import itertools
import math
import random
from datetime import date
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from pipelines.percentile_cuts import assign_percentiles, fit_cuts, log_bin
from pipelines.tables import PERCENTILE_CUTS
from tests.pipelines.log_rows import march

_ORACLE = [0, 0, 1, 3, 10, 100, 1_000, 5_000, 20_000, 1_000_000]
_SCHEMA = "event_date date, age_bucket int, popularity long, rate long, duration long"


def _numbers(spark: SparkSession, *rows: tuple) -> DataFrame:
    """Return numbers from (day of March, popularity[, age bucket])."""
    full = [(march(day), *(rest or (1,)), value, None, None) for day, value, *rest in rows]
    return spark.createDataFrame(full, _SCHEMA)


def _fit(numbers: DataFrame, **options: Any) -> DataFrame:
    """Fit cuts where everything arrived on its own day."""
    day = F.col("event_date")
    known = numbers.withColumns({"known_on": day, "known_until": F.lit(None).cast("date")})
    days = numbers.select("event_date", day.alias("known_before")).distinct()
    return fit_cuts(known, days=days, **options)


def _popularity(spark: SparkSession, cuts: DataFrame, *rows: tuple) -> list[int]:
    numbers = (
        _numbers(spark, *rows).coalesce(1).withColumn("place", F.monotonically_increasing_id())
    )
    found = assign_percentiles(numbers, cuts).orderBy("place").collect()
    return [row.popularity_percentile for row in found]


def test_the_oracle_of_the_spec(spark: SparkSession) -> None:
    numbers = _numbers(spark, *((1, value) for value in _ORACLE), (2, 7))
    cuts = _fit(numbers, start=march(1), end=march(2))
    rows = [(2, value) for value in (0, 1, 10, 1_000_000, 5_000_000)]
    assert _popularity(spark, cuts, *rows) == [1, 20, 40, 90, 100]


def test_a_bin_holds_neighbours_and_never_falls(spark: SparkSession) -> None:
    small = list(range(2**12 - 1))
    edges = [2**power + step for power in range(12, 63) for step in (-1, 0, 1)]
    frame = spark.createDataFrame([(value,) for value in small + edges], "value long")
    bins = [row[0] for row in frame.select(log_bin(F.col("value"))).collect()]
    assert bins[:32] == small[:32]
    assert bins == sorted(bins)
    assert [bins[value] for value in (32, 33, 34, 63, 64, 67, 68, 127, 128)] == (
        [32, 32, 33, 47, 48, 48, 49, 63, 64]
    )
    octaves = [bins[len(small) + 3 * place + 1] for place in range(51)]
    assert {after - before for before, after in itertools.pairwise(octaves)} == {16}


def test_a_negative_number_counts_as_zero_and_null_stays_null(spark: SparkSession) -> None:
    unknown = F.lit(None).cast("long")
    found = spark.range(1).select(log_bin(F.lit(-5)), log_bin(unknown)).collect()
    assert tuple(found[0]) == (0, None)


def test_percentiles_are_monotone_and_bounded_by_a_plain_count(spark: SparkSession) -> None:
    chance = random.Random(1)
    past = [int(math.exp(chance.uniform(0, 14))) for _ in range(400)]
    cuts = _fit(
        _numbers(spark, *((1, value) for value in past), (2, 0)), start=march(2), end=march(2)
    )
    asked = sorted([0, 1, 2**40, *(int(math.exp(chance.uniform(0, 15))) for _ in range(200))])
    found = _popularity(spark, cuts, *((2, value) for value in asked))
    assert found == sorted(found)
    assert found[0] == 1 and found[-1] == 100
    for value, percentile in zip(asked, found, strict=True):
        exact = math.ceil(sum(other < value for other in past) / 4)
        widest = math.ceil(sum(other < value * 15 / 16 for other in past) / 4)
        assert max(1, widest) <= percentile <= max(1, exact)


def test_cuts_are_rows_of_the_contract(spark: SparkSession) -> None:
    full = [
        (march(1), 1, 5, 250, 40),
        (march(1), 1, 5, None, 41),
        (march(1), 2, 0, None, None),
        (march(2), 1, 9, 9, 9),
    ]
    cuts = _fit(spark.createDataFrame(full, _SCHEMA), start=march(1), end=march(2))
    rows = [
        (march(2), "duration", 1, [36], [0], 2),
        (march(2), "popularity", 1, [5], [0], 2),
        (march(2), "popularity", 2, [0], [0], 1),
        (march(2), "rate", 1, [79], [0], 1),
    ]
    expected = [(*row, "any") for row in rows]
    found = cuts.withColumn("version", F.lit("any"))
    assertDataFrameEqual(found, spark.createDataFrame(expected, PERCENTILE_CUTS.schema))


def test_unknown_numbers_first_days_and_strange_ages_give_zero(spark: SparkSession) -> None:
    numbers = _numbers(spark, (1, 5), (2, 5))
    cuts = _fit(numbers, start=march(1), end=march(2))
    rows = [(1, 5), (2, None), (2, 5, 4), (3, 5), (2, 5)]
    assert _popularity(spark, cuts, *rows) == [0, 0, 0, 0, 1]
    found = assign_percentiles(numbers, cuts, features=("rate", "duration"))
    assert found.columns == [*numbers.columns, "rate_percentile", "duration_percentile"]


def test_the_window_holds_the_days_strictly_before(spark: SparkSession) -> None:
    numbers = _numbers(spark, (1, 0), (2, 1), (4, 2), (5, 3), (7, 4))
    cuts = _fit(numbers, start=march(2), end=march(31), window_days=2)
    found = {row.event_date: row.bins for row in cuts.select("event_date", "bins").collect()}
    assert found == {march(2): [0], march(4): [1], march(5): [2], march(7): [3]}


def test_the_future_changes_no_cut_and_no_version(spark: SparkSession) -> None:
    chance = random.Random(2)
    rows = [
        (chance.randint(1, 20), chance.randint(0, 500), chance.randint(0, 5)) for _ in range(300)
    ]
    whole = _fit(_numbers(spark, *rows), start=march(1), end=march(31))
    for cut in chance.sample(range(5, 20), 2):
        moved = [row if row[0] < cut else (min(row[0] + 1, 31), row[1] * 3 + 1, 1) for row in rows]
        again = _fit(_numbers(spark, *moved, (cut, 0)), start=march(1), end=march(cut))
        until_cut = whole.where(F.col("event_date") <= F.lit(march(cut)))
        assertDataFrameEqual(again, until_cut)


def test_one_day_again_gives_the_same_cuts(spark: SparkSession) -> None:
    rows = [(day, value) for day in range(1, 6) for value in (day, 2 * day, 100)]
    numbers = _numbers(spark, *rows)
    whole = _fit(numbers, start=march(1), end=march(5))
    day = _fit(numbers, start=march(4), end=march(4))
    assertDataFrameEqual(day, whole.where(F.col("event_date") == F.lit(march(4))))


def test_a_version_changes_with_the_counts_and_only_then(spark: SparkSession) -> None:
    versions = []
    for rows in ([(1, 5), (1, 6)], [(1, 6), (1, 5)], [(1, 5), (1, 7)], [(1, 5), (1, 6), (1, 6)]):
        cuts = _fit(_numbers(spark, *rows, (2, 0)), start=march(2), end=march(2))
        versions.append([row.version for row in cuts.collect()])
    first, same, other_bin, other_count = versions
    assert len(first) == 1 and first == same
    assert len({*first, *other_bin, *other_count}) == 3


def test_no_numbers_give_no_cuts(spark: SparkSession) -> None:
    cuts = _fit(_numbers(spark), start=march(1), end=march(2))
    assertDataFrameEqual(cuts, spark.createDataFrame([], PERCENTILE_CUTS.schema))
    assert _popularity(spark, cuts, (1, 5)) == [0]


@pytest.mark.parametrize(("end", "window_days"), [(march(1), 28), (date(2024, 3, 9), 0)])
def test_refuses_a_fit_without_days(spark: SparkSession, end: date, window_days: int) -> None:
    with pytest.raises(ValueError, match="no days to fit"):
        _fit(_numbers(spark, (1, 5)), start=march(2), end=end, window_days=window_days)
