"""Rows of a small raw log in short, and the manifest that describes it."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipelines.cleaning import split_raw
from pipelines.contract import Table
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import INTERACTIONS, ITEM_COUNTERS, ITEM_DAYS, ITEMS, RAW_EVENTS

LOG = SourceManifest(
    source="mapped",
    actions=("click", "like"),
    primary_action="click",
    positive_actions=("click", "like"),
    surfaces=("feed",),
    start_date=date(2024, 3, 1),
    end_date=date(2024, 3, 31),
    validation_start=datetime(2024, 3, 20, tzinfo=UTC),
    test_start=datetime(2024, 3, 25, tzinfo=UTC),
)
BERLIN = replace(LOG, timezone="Europe/Berlin")
CLICK, LIKE = 1, 2


def utc(text: str) -> datetime:
    """Return an instant of March 2024, UTC, from `DD HH:MM:SS` (seconds may be left out)."""
    day, clock = text.split(" ")
    clock = clock if clock.count(":") == 2 else f"{clock}:00"
    return datetime.fromisoformat(f"2024-03-{day}T{clock}+00:00")


def march(day: int) -> date:
    """Return a day of March 2024."""
    return date(2024, 3, day)


def impression(event_id: str | None, when: str | None, **columns: Any) -> dict[str, Any]:
    """Return a raw impression of item `a` by user `u`, filed under its UTC day."""
    time = utc(when) if when else None
    return {
        "event_id": event_id,
        "kind": "impression",
        "user_id": "u",
        "item_id": "a",
        "event_time": time,
        "event_date": time.date() if time else march(1),
        **columns,
    }


def action(event_id: str | None, when: str, name: str = "click", **columns: Any) -> dict[str, Any]:
    """Return a raw action row of user `u` on item `a`, filed under its UTC day."""
    return {**impression(event_id, when), "kind": "action", "actions": [name], **columns}


def rows_of(spark: SparkSession, table: Table, rows: list[dict[str, Any]]) -> DataFrame:
    """Return rows of a table; columns that are not named are null."""
    for row in rows:
        assert not set(row) - set(table.column_names), f"unknown columns in {row}"
    values = [tuple(row.get(name) for name in table.column_names) for row in rows]
    return spark.createDataFrame(values, table.schema)


def raw_log(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    """Return rows of `RAW_EVENTS`."""
    return rows_of(spark, RAW_EVENTS, list(rows))


def shown(event_id: str, item_id: str, day: int, bits: int = 0, **columns: Any) -> dict[str, Any]:
    """Return an interaction at noon of a day of March 2024."""
    return {
        "event_id": event_id,
        "request_id": event_id,
        "user_id": "u",
        "item_id": item_id,
        "event_time": utc(f"{day:02d} 12:00"),
        "event_date": march(day),
        "arrival_date": march(day),
        "local_hour": 12,
        "local_weekday": march(day).weekday(),
        "action_bits": bits,
        **columns,
    }


def interaction_log(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    """Return rows of `INTERACTIONS`."""
    return rows_of(spark, INTERACTIONS, list(rows))


def item_day(
    item_id: str, day: int, impressions: int, clicks: int, *, arrived: int | None = None
) -> dict[str, Any]:
    """Return a row of `ITEM_DAYS`, by default of what arrived on its day; likes are zero."""
    return {
        "item_id": item_id,
        "event_date": march(day),
        "arrival_date": march(arrived or day),
        "impressions": impressions,
        "action_counts": [clicks, 0],
        "first_event_time": utc(f"{day:02d} 12:00"),
    }


def item_day_log(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    """Return rows of `ITEM_DAYS`."""
    return rows_of(spark, ITEM_DAYS, list(rows))


def counter(
    item_id: str, day: int, impressions: int, clicks: int, **columns: Any
) -> dict[str, Any]:
    """Return a row of `ITEM_COUNTERS`; likes are zero, the last week is everything before."""
    return {
        "item_id": item_id,
        "event_date": march(day),
        "impressions_before": impressions,
        "action_counts_before": [clicks, 0],
        "impressions_7d": impressions,
        "action_counts_7d": [clicks, 0],
        "first_shown_date": march(day),
        **columns,
    }


def counter_log(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    """Return rows of `ITEM_COUNTERS`."""
    return rows_of(spark, ITEM_COUNTERS, list(rows))


def item_table(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    """Return rows of `ITEMS`, numbered in the order given."""
    numbered = [{"item_index": place + 1, **row} for place, row in enumerate(rows)]
    return rows_of(spark, ITEMS, numbered)


def reasons_of(raw: DataFrame, *, manifest: SourceManifest = LOG, **options: Any) -> list[tuple]:
    """Return (event id, reason) of the rejected rows, sorted."""
    _, rejected = split_raw(raw, manifest=manifest, **{"items": None, **options})
    found = rejected.select("event_id", "reason").collect()
    return sorted(tuple(row) for row in found)
