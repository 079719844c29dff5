"""Rows of the tables that sequences and prompts are built from, in short."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipelines.contract import Table
from pipelines.sources.manifest import SourceManifest

MANIFEST = SourceManifest(
    source="mapped",
    actions=("click", "like", "hide"),
    primary_action="click",
    positive_actions=("click", "like"),
    surfaces=("feed", "search"),
    start_date=date(2024, 1, 1),
    end_date=date(2024, 1, 31),
    validation_start=datetime(2024, 1, 11, tzinfo=UTC),
    test_start=datetime(2024, 1, 21, tzinfo=UTC),
    maturity_seconds=86_400,  # mature until the 31st begins
)
CLICK, LIKE, HIDE = 1, 2, 4


def at(day: int, hour: float = 12.0) -> datetime:
    """Return an instant of January 2024, UTC."""
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day - 1, hours=hour)


def frame(spark: SparkSession, table: Table, rows: list[dict[str, Any]]) -> DataFrame:
    """Return rows of a table; columns that are not named are null."""
    values = [tuple(row.get(name) for name in table.column_names) for row in rows]
    for row in rows:
        assert not set(row) - set(table.column_names), f"unknown columns in {row}"
    return spark.createDataFrame(values, table.schema)


def impression(
    event_id: str, user_id: str, item_id: str, time: datetime, **columns: Any
) -> dict[str, Any]:
    """Return one row of the interactions table, in UTC days, by default without any action."""
    return {
        "event_id": event_id,
        "request_id": event_id,
        "user_id": user_id,
        "item_id": item_id,
        "event_time": time,
        "event_date": time.date(),
        "arrival_date": time.date(),
        "local_hour": time.hour,
        "local_weekday": time.weekday(),
        "action_bits": 0,
        "dwell_bucket": 0,
        **columns,
    }
