"""What happened on each day: counts by hand."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipelines.contract import Table
from pipelines.day_statistics import day_statistics, raw_day_statistics
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST, SECOND, THIRD = (date(2026, 1, day) for day in (1, 2, 3))
MANIFEST = SourceManifest(
    source="mapped",
    actions=("click", "like"),
    primary_action="click",
    positive_actions=("click",),
    surfaces=(),
    start_date=FIRST,
    end_date=THIRD,
    validation_start=datetime(2026, 1, 2, tzinfo=UTC),
    test_start=datetime(2026, 1, 3, tzinfo=UTC),
)


def _frame(spark: "SparkSession", table: Table, *rows: dict[str, Any]) -> "DataFrame":
    values = [tuple(row.get(name) for name in table.column_names) for row in rows]
    return spark.createDataFrame(values, table.schema).coalesce(1)


def _raw(day: date, **values: Any) -> dict[str, Any]:
    named = {"event_id": "e", "user_id": "u1", "item_id": "i1", "event_date": day}
    return named | {"event_time": datetime(2026, 1, day.day, 9, tzinfo=UTC)} | values


def test_raw_days_count_users_nameless_rows_and_the_newest_timely_event(
    spark: "SparkSession",
) -> None:
    raw = _frame(
        spark,
        RAW_EVENTS,
        _raw(FIRST),
        _raw(FIRST, user_id=None),
        _raw(FIRST, item_id=" ", event_time=datetime(2085, 1, 1, tzinfo=UTC)),
        _raw(FIRST, user_id="u2", event_time=datetime(2026, 1, 1, 11, tzinfo=UTC)),
        _raw(THIRD, event_time=None),
        _raw(date(2026, 1, 4)),
    )
    found = raw_day_statistics(raw, zone="UTC", start=FIRST, end=THIRD).collect()
    rows = [tuple(row) for row in sorted(found)]
    newest = datetime(2026, 1, 1, 11)
    assert rows == [(FIRST, 4, 2, 2, newest), (SECOND, 0, 0, 0, None), (THIRD, 1, 1, 0, None)]


def test_days_count_what_became_of_each_raw_row(spark: "SparkSession") -> None:
    raw = _frame(spark, RAW_EVENTS, *[_raw(FIRST)] * 7, _raw(THIRD))
    reasons = ("exact_duplicate", "key_duplicate", "unknown_item", "missing_user")
    rejected = _frame(
        spark, REJECTED_EVENTS, *({"event_date": FIRST, "reason": reason} for reason in reasons)
    )
    shown = {"event_date": FIRST, "user_id": "u1", "num_source_rows": 2, "action_bits": 3}
    one = shown | {"user_id": "u2", "num_source_rows": 1, "action_bits": 1}
    interactions = _frame(spark, INTERACTIONS, shown, one)
    found = day_statistics(
        raw, rejected=rejected, interactions=interactions, manifest=MANIFEST, days=(FIRST, THIRD)
    ).collect()
    assert [tuple(row) for row in sorted(found)] == [
        (FIRST, 7, 3, 4, 2, 1, 2, 2, [2, 1]),
        (SECOND, 0, 0, 0, 0, 0, 0, 0, [0, 0]),
        (THIRD, 1, 0, 0, 0, 0, 0, 0, [0, 0]),
    ]


def test_rows_of_later_days_count_as_kept_on_the_day_they_were_filed(
    spark: "SparkSession",
) -> None:
    manifest = replace(MANIFEST, actions_filed_apart=True)
    shown = {"user_id": "u1", "action_bits": 0}
    interactions = _frame(
        spark,
        INTERACTIONS,
        shown | {"event_date": FIRST, "num_source_rows": 4, "later_days": [1, 1, 2]},
        shown | {"event_date": SECOND, "num_source_rows": 2, "later_days": [1]},
        shown | {"event_date": SECOND, "num_source_rows": 1},
    )
    nothing = _frame(spark, RAW_EVENTS), _frame(spark, REJECTED_EVENTS)
    found = day_statistics(
        nothing[0],
        rejected=nothing[1],
        interactions=interactions,
        manifest=manifest,
        days=(SECOND, THIRD),
    )
    kept = {row.event_date: row.kept_rows for row in found.collect()}
    assert kept == {SECOND: 1 + 1 + 2, THIRD: 1 + 1}
