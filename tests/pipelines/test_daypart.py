"""Wall clocks of a zone, on both sides of its changes to and from summer time."""

from datetime import UTC, date, datetime
from functools import reduce

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.daypart import end_of_day, local_date, local_hour, local_weekday

_EXPECTED = [
    ("2024-03-31T00:59:59.999", "Europe/Berlin", date(2024, 3, 31), 1, 6),
    ("2024-03-31T01:00", "Europe/Berlin", date(2024, 3, 31), 3, 6),
    ("2024-03-31T21:59:59", "Europe/Berlin", date(2024, 3, 31), 23, 6),
    ("2024-03-31T22:00", "Europe/Berlin", date(2024, 4, 1), 0, 0),
    ("2024-10-27T00:30", "Europe/Berlin", date(2024, 10, 27), 2, 6),
    ("2024-10-27T01:30", "Europe/Berlin", date(2024, 10, 27), 2, 6),
    ("2024-10-27T02:00", "Europe/Berlin", date(2024, 10, 27), 3, 6),
    ("2024-10-27T22:59:59", "Europe/Berlin", date(2024, 10, 27), 23, 6),
    ("2024-10-27T23:00", "Europe/Berlin", date(2024, 10, 28), 0, 0),
    ("2024-03-10T06:59", "America/New_York", date(2024, 3, 10), 1, 6),
    ("2024-03-10T07:00", "America/New_York", date(2024, 3, 10), 3, 6),
    ("2024-11-03T05:30", "America/New_York", date(2024, 11, 3), 1, 6),
    ("2024-11-03T06:30", "America/New_York", date(2024, 11, 3), 1, 6),
    ("2024-01-01T18:29", "Asia/Kolkata", date(2024, 1, 1), 23, 0),
    ("2024-01-01T18:30", "Asia/Kolkata", date(2024, 1, 2), 0, 1),
    ("2024-01-01T23:59:59.999999", "UTC", date(2024, 1, 1), 23, 0),
    ("1969-12-31T23:59", "UTC", date(1969, 12, 31), 23, 2),
]


def _wall_clocks(spark: SparkSession) -> list[tuple]:
    rows = [
        (instant, zone, datetime.fromisoformat(instant).replace(tzinfo=UTC))
        for instant, zone, *_ in _EXPECTED
    ]
    frame = spark.createDataFrame(rows, "instant string, zone string, time timestamp")
    clocks = []
    for zone in sorted({zone for _, zone, *_ in _EXPECTED}):
        clock = (read(F.col("time"), zone=zone) for read in (local_date, local_hour, local_weekday))
        clocks.append(frame.where(F.col("zone") == zone).select("instant", "zone", *clock))
    return sorted(tuple(row) for row in reduce(DataFrame.unionAll, clocks).collect())


@pytest.mark.parametrize("session_zone", ["UTC", "Asia/Tokyo"])
def test_reads_the_wall_clock_of_the_zone_in_any_session(
    spark: SparkSession, session_zone: str
) -> None:
    spark.conf.set("spark.sql.session.timeZone", session_zone)
    try:
        assert _wall_clocks(spark) == sorted(_EXPECTED)
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


@pytest.mark.parametrize(
    ("day", "end"),
    [
        (date(2024, 3, 30), datetime(2024, 3, 30, 23, tzinfo=UTC)),
        (date(2024, 3, 31), datetime(2024, 3, 31, 22, tzinfo=UTC)),
        (date(2024, 10, 26), datetime(2024, 10, 26, 22, tzinfo=UTC)),
        (date(2024, 10, 27), datetime(2024, 10, 27, 23, tzinfo=UTC)),
    ],
)
def test_a_day_ends_at_the_zones_midnight(day: date, end: datetime) -> None:
    assert end_of_day(day, zone="Europe/Berlin") == end
