"""The range of a log and its quantiles, also where some clocks were wrong."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.sources.time_span import LogSpan, measure

START = datetime(2026, 3, 1, tzinfo=UTC)


def _span(spark: SparkSession, times: Sequence[datetime | None]) -> LogSpan:
    rows = [
        (time.strftime("%Y-%m-%d %H:%M:%S") if time else None, "x", f"s{place % 2}", ["a"])
        for place, time in enumerate(times)
    ]
    schema = "at string, time_text string, surface string, actions array<string>"
    frame = spark.createDataFrame(rows, schema)
    return measure(frame.withColumn("event_time", F.col("at").cast("timestamp")))


def test_quantiles_match_evenly_spread_times(spark: SparkSession) -> None:
    span = _span(spark, [START + timedelta(minutes=minute) for minute in range(3000)])
    assert span.num_rows == 3000
    assert span.surfaces == ("s0", "s1")
    assert span.actions == ("a",)
    for fraction in (0.8, 0.9):
        exact = START + timedelta(minutes=3000 * fraction)
        assert abs(span.quantile(fraction) - exact) < timedelta(minutes=1)


def test_days_are_those_of_the_zone(spark: SparkSession) -> None:
    span = _span(spark, [START + timedelta(hours=hour) for hour in (0, 20, 22)])
    assert span.days(zone="UTC") == (date(2026, 3, 1), date(2026, 3, 1))
    assert span.days(zone="Asia/Shanghai") == (date(2026, 3, 1), date(2026, 3, 2))
    assert span.days(zone="America/Lima") == (date(2026, 2, 28), date(2026, 3, 1))
    # 18:20 UTC is 23:50 in Kolkata, 18:40 is 00:10 of the next day there.
    late = _span(spark, [START.replace(hour=18, minute=20), START.replace(hour=18, minute=40)])
    assert late.days(zone="Asia/Kolkata") == (date(2026, 3, 1), date(2026, 3, 2))


def test_a_few_wrong_clocks_do_not_stretch_the_range(spark: SparkSession) -> None:
    times: list[datetime | None] = [START + timedelta(hours=hour) for hour in range(100)]
    wrong = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC), None]
    span = _span(spark, times + wrong)
    assert span.days(zone="UTC") == (date(2026, 3, 1), date(2026, 3, 5))
    assert span.num_rows == 103


def test_a_pause_of_years_between_two_large_parts_is_kept(spark: SparkSession) -> None:
    early = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(20)]
    late = [START + timedelta(hours=hour) for hour in range(20)]
    assert _span(spark, early + late).days(zone="UTC") == (date(2020, 1, 1), date(2026, 3, 1))


def test_a_log_without_times_has_rows_and_no_range(spark: SparkSession) -> None:
    span = _span(spark, [None, None])
    assert (span.num_rows, span.starts, span.example) == (2, (), "x")
