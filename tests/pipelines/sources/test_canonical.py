"""Conversions from strings: what is read, what is null, and that nothing raises."""

from collections.abc import Sequence
from datetime import date, datetime

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import (
    as_raw_events,
    epoch_instant,
    flag,
    row_id,
    whole_number,
    written_instant,
)
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS


def _read(spark: SparkSession, texts: Sequence[str | None], column: Column) -> list[object]:
    rows = [(place, text) for place, text in enumerate(texts)]
    frame = spark.createDataFrame(rows, "place int, text string")
    return [
        row["value"] for row in frame.select("place", column.alias("value")).sort("place").collect()
    ]


def test_flags_are_read_and_anything_else_is_null(spark: SparkSession) -> None:
    texts = ["1", "0", "true", " False ", "1.0", "", None, "2", "yes?"]
    expected = [True, False, True, False, True, False, False, None, None]
    assert _read(spark, texts, flag(F.col("text"))) == expected


def test_numbers_are_scaled_and_rounded_and_nonsense_is_null(spark: SparkSession) -> None:
    texts = ["12", " 1.5", "1e3", "-2", "", None, "nan", "inf", "1e300", "12s"]
    expected = [12_000, 1_500, 1_000_000, -2_000, None, None, None, None, None, None]
    assert _read(spark, texts, whole_number(F.col("text"), scale=1000)) == expected


def test_epoch_times_keep_fractions_and_refuse_what_no_calendar_holds(spark: SparkSession) -> None:
    texts = ["1650812741436", "0", "", "x", "9" * 17, "9" * 40, "-1"]
    read = _read(spark, texts, epoch_instant(F.col("text"), unit="ms"))
    assert read[0] == datetime(2022, 4, 24, 15, 5, 41, 436_000)
    assert read[1] == datetime(1970, 1, 1)
    assert read[2:6] == [None] * 4
    assert read[6] == datetime(1969, 12, 31, 23, 59, 59, 999_000)
    seconds = _read(spark, ["1650812741.25"], epoch_instant(F.col("text"), unit="s"))
    assert seconds == [datetime(2022, 4, 24, 15, 5, 41, 250_000)]


def test_written_times_follow_the_zone_through_both_clock_changes(spark: SparkSession) -> None:
    texts = [
        "2026-03-29 01:59:59",  # winter time, UTC+1
        "2026-03-29 02:30:00",  # skipped by the clock: an hour later in summer time
        "2026-03-29 03:00:00",  # summer time, UTC+2
        "2026-10-25 02:30:00",  # shown twice: the earlier instant
        "2026-10-25 03:00:00",
        "29.03.2026",
        None,
    ]
    read = _read(
        spark,
        texts,
        written_instant(F.col("text"), pattern="yyyy-MM-dd HH:mm:ss", zone="Europe/Berlin"),
    )
    assert read == [
        datetime(2026, 3, 29, 0, 59, 59),
        datetime(2026, 3, 29, 1, 30),
        datetime(2026, 3, 29, 1, 0),
        datetime(2026, 10, 25, 0, 30),
        datetime(2026, 10, 25, 2, 0),
        None,
        None,
    ]


def test_written_times_do_not_depend_on_the_sessions_zone(spark: SparkSession) -> None:
    zone = spark.conf.get("spark.sql.session.timeZone") or "UTC"
    local = written_instant(F.col("text"), pattern="yyyy-MM-dd HH:mm", zone="Asia/Kolkata")
    iso = written_instant(F.col("text"), pattern="iso", zone="Asia/Kolkata")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        written = _read(spark, ["2026-03-08 02:30"], F.unix_micros(local))
        iso_read = _read(
            spark,
            [
                "2026-03-08T02:30:00",
                "2026-03-08T02:30:00Z",
                "2026-03-08 02:30:00-05:00",
                "2026-03-08",
                "noon",
            ],
            F.unix_micros(iso),
        )
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    midnight = 1_772_928_000_000_000  # 2026-03-08T00:00Z
    minute = 60_000_000
    assert written == [midnight - 180 * minute]
    assert iso_read == [
        midnight - 180 * minute,
        midnight + 150 * minute,
        midnight + 450 * minute,
        midnight - 330 * minute,
        None,
    ]


def test_offsets_in_a_format_win_over_the_zone(spark: SparkSession) -> None:
    pattern = "yyyy-MM-dd'T'HH:mm:ssXXX"
    column = written_instant(F.col("text"), pattern=pattern, zone="Europe/Berlin")
    assert _read(spark, ["2026-06-01T12:00:00+05:30"], column) == [datetime(2026, 6, 1, 6, 30)]


def test_row_ids_tell_apart_where_a_null_stands(spark: SparkSession) -> None:
    rows = [("a", None), (None, "a"), ("a", ""), ("a", None)]
    frame = spark.createDataFrame(rows, "one string, two string")
    ids = [
        row["id"] for row in frame.select(row_id(F.col("one"), F.col("two")).alias("id")).collect()
    ]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3
    assert all(len(one) == 16 for one in ids)


def test_rows_without_a_usable_time_are_filed_under_the_first_day(spark: SparkSession) -> None:
    manifest = SourceManifest(
        source="mapped",
        actions=("click",),
        primary_action="click",
        positive_actions=("click",),
        surfaces=(),
        start_date=date(2026, 3, 29),
        end_date=date(2026, 3, 30),
        validation_start=datetime(2026, 3, 30, 6),
        test_start=datetime(2026, 3, 30, 12),
        timezone="Europe/Berlin",
    )
    rows = [
        ("first", "2026-03-28 23:00:00"),  # midnight in Berlin
        ("second", "2026-03-29 22:00:00"),  # midnight in Berlin, a day of 23 hours later
        ("before", "2026-03-28 22:59:59"),
        ("after", "2026-03-30 22:00:00"),
        ("never", None),
    ]
    frame = spark.createDataFrame(rows, "event_id string, at string").select(
        "event_id", F.col("at").cast("timestamp").alias("event_time")
    )
    one_day = date(2026, 3, 29)
    filed = as_raw_events(frame, manifest=manifest, start=one_day, end=one_day)
    assert filed.schema.simpleString() == RAW_EVENTS.schema.simpleString()
    assert {row["event_id"] for row in filed.collect()} == {"first", "before", "after", "never"}
    next_day = as_raw_events(
        frame, manifest=manifest, start=date(2026, 3, 30), end=manifest.end_date
    )
    assert [row["event_id"] for row in next_day.collect()] == ["second"]
