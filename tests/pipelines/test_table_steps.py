"""Steps from one contract to the next, on rows of the older one."""

from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from pipelines.table_steps import (
    add_later_days,
    add_logging_policy,
    add_logging_policy_lists,
    add_session_index,
    drop_is_mature,
)

_NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def test_interactions_lose_their_maturity(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("e", True)], "event_id string, is_mature boolean")
    assert [row.asDict() for row in drop_is_mature(frame).collect()] == [{"event_id": "e"}]


def test_interactions_of_older_homes_have_no_later_rows(spark: SparkSession) -> None:
    found = add_later_days(spark.createDataFrame([("e",)], "event_id string"))
    assert found.schema.simpleString() == "struct<event_id:string,later_days:array<int>>"
    assert [row.asDict() for row in found.collect()] == [{"event_id": "e", "later_days": None}]


def test_sessions_are_counted_from_the_times_of_a_row(spark: SparkSession) -> None:
    seconds = [0, 1_800, 3_601, 3_601, 90_000]
    times = [None, None, *(_NOON + timedelta(seconds=second) for second in seconds)]
    rows = [("u", times), ("v", [None]), ("w", [])]
    frame = spark.createDataFrame(rows, "user_id string, event_time array<timestamp>")
    found = {row.user_id: row.session_index for row in add_session_index(frame).collect()}
    assert found == {"u": [0, 0, 1, 1, 2, 2, 3], "v": [0], "w": []}


def test_older_segments_do_not_know_the_logging_policy(spark: SparkSession) -> None:
    found = add_logging_policy(spark.createDataFrame([("e",)], "event_id string"))
    assert found.schema.simpleString() == (
        "struct<event_id:string,propensity:double,is_shuffled:boolean>"
    )
    expected = {"event_id": "e", "propensity": None, "is_shuffled": None}
    assert [row.asDict() for row in found.collect()] == [expected]


def test_older_sequences_do_not_know_the_logging_policy_of_any_event(spark: SparkSession) -> None:
    rows = [("u", [3, 0, 4]), ("v", [1]), ("w", [])]
    frame = spark.createDataFrame(rows, "user_id string, item_index array<int>")
    found = add_logging_policy_lists(frame)
    assert found.schema.simpleString() == (
        "struct<user_id:string,item_index:array<int>,propensity:array<double>,"
        "is_shuffled:array<boolean>>"
    )
    unknown = {"u": [None] * 3, "v": [None], "w": []}
    for name in ("propensity", "is_shuffled"):
        assert {row.user_id: row[name] for row in found.collect()} == unknown
