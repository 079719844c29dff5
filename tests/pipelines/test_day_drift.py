"""Days beside the days before them: medians, weekdays, accepted days, too little to compare."""

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.day_drift import interaction_day_drift, raw_day_drift
from pipelines.thresholds import DayThresholds

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

START = date(2026, 1, 1)
LIMITS = DayThresholds(min_users=10, min_days=3, min_rows=50)


def _raw(
    spark: "SparkSession", days: list[tuple[int, int, int]], accepted: tuple[date, ...] = ()
) -> "list[Row]":
    """Compare days of (rows, users, nameless rows) whose newest event is at 21:00 UTC."""
    rows = [
        (START + timedelta(days=n), *day, datetime(2026, 1, 1, 21) + timedelta(days=n))
        for n, day in enumerate(days)
    ]
    schema = (
        "event_date date, raw_rows long, raw_users long, nameless_rows long, newest_time timestamp"
    )
    frame = spark.createDataFrame(rows, schema).coalesce(1)
    drift = raw_day_drift(frame, zone="UTC", limits=LIMITS, accepted=accepted)
    return sorted(drift.collect(), key=lambda row: row.event_date)


def test_a_day_is_compared_with_the_median_of_the_days_before(spark: "SparkSession") -> None:
    days = _raw(spark, [(100, 10, 0), (400, 10, 0), (200, 20, 20), (300, 30, 0), (450, 15, 90)])
    assert [row.row_ratio for row in days] == [None, None, None, 1.5, 1.8]
    assert days[3].rows_per_user_ratio == 1.0  # 10 to the median of 10, 40 and 10
    assert days[4].rows_per_user_ratio == 3.0
    assert days[4].nameless_rise == pytest.approx(0.2)  # median of 0, 0, .1 and 0
    assert days[4].quiet_seconds == 3 * 3600
    assert not any(row.is_accepted for row in days)


def test_a_weekday_that_rests_every_week_is_as_usual(spark: "SparkSession") -> None:
    week = [(100, 20, 0)] * 6 + [(10, 5, 0)]
    days = _raw(spark, [*week, *week])
    assert days[6].row_ratio == 0.1
    assert days[13].row_ratio == 1.0


def test_accepted_days_are_not_judged_and_no_measure_for_later_ones(
    spark: "SparkSession",
) -> None:
    days = [(100, 20, 0)] * 3 + [(900, 20, 0)] * 3 + [(200, 20, 0)]
    accepted = tuple(START + timedelta(days=n) for n in (3, 4, 5))
    found = _raw(spark, days, accepted)
    assert [row.is_accepted for row in found] == [False] * 3 + [True] * 3 + [False]
    assert [row.row_ratio for row in found[3:]] == [None, None, None, 2.0]


def test_days_of_few_users_are_not_compared_and_an_outage_is(spark: "SparkSession") -> None:
    few = _raw(spark, [(100, 9, 0)] * 4 + [(900, 9, 0)])
    assert [row.row_ratio for row in few] == [None] * 5
    outage = _raw(spark, [(100, 10, 0)] * 4 + [(0, 0, 0), (100, 10, 0)])
    assert [row.row_ratio for row in outage[4:]] == [0.0, 1.0]
    assert outage[4].rows_per_user_ratio is None


def _day(rows: int, rejected: int, clicks: int, **values: Any) -> dict[str, Any]:
    shown = {"num_interactions": rows - rejected, "num_users": 100, "repeated_rows": 0}
    counts = {"raw_rows": rows, "rejected_rows": rejected, "unknown_rows": 0}
    return shown | counts | {"kept_rows": rows - rejected, "action_counts": [clicks]} | values


def test_refused_rows_and_rates_of_actions_are_compared(spark: "SparkSession") -> None:
    usual = [_day(1000, 200, 160)] * 3
    days = [*usual, _day(1000, 500, 250, repeated_rows=300, unknown_rows=100), _day(40, 0, 0)]
    rows = [day | {"event_date": START + timedelta(days=number)} for number, day in enumerate(days)]
    schema = (
        "event_date date, raw_rows long, kept_rows long, rejected_rows long, repeated_rows long, "
        "unknown_rows long, num_interactions long, num_users long, action_counts array<long>"
    )
    names = [part.split()[0] for part in schema.split(", ")]
    values = [tuple(row[name] for name in names) for row in rows]
    frame = spark.createDataFrame(values, schema).coalesce(1)
    drift = interaction_day_drift(frame, num_actions=1, limits=LIMITS).collect()
    found = sorted(drift, key=lambda row: row.event_date)
    assert [row.rejected_fraction for row in found] == [0.2, 0.2, 0.2, 0.5, None]
    assert found[3].rejected_rise == pytest.approx(0.3)
    assert found[3].repeated_rise == pytest.approx(0.3)
    assert found[3].unknown_rise == pytest.approx(0.1)
    # 250 of 500 beside a usual rate of .2; its error is sqrt(.2 * .8 * (1/100 + 1/100)).
    assert found[3].rate_changes == pytest.approx([1.5])
    assert found[3].rate_deviations == pytest.approx([0.3 / 0.0565685], rel=1e-5)
    assert found[2].rate_changes == [None]
