"""Attribution: which impression an action belongs to, tier by tier."""

from pyspark.sql import SparkSession

from pipelines.attribution import attribute_actions
from tests.pipelines.log_rows import action, impression, march, raw_log


def _attributed(spark: SparkSession, *rows: dict) -> dict[str, str | None]:
    found = attribute_actions(
        raw_log(spark, *rows), attribution_seconds=3600, clock_tolerance_seconds=60
    )
    pairs = found.select("event_id", "kind", "interaction_id").collect()
    assert all(row.interaction_id == row.event_id for row in pairs if row.kind == "impression")
    return {row.event_id: row.interaction_id for row in pairs if row.kind == "action"}


def test_an_impression_id_decides_before_anything_else(spark: SparkSession) -> None:
    found = _attributed(
        spark,
        impression("i1", "05 10:00", impression_id="p1", request_id="r1"),
        impression("i2", "05 10:10", impression_id="p2", request_id="r2"),
        action("by_id", "05 10:20", impression_id="p1"),
        action("against_request", "05 10:20", impression_id="p1", request_id="r2"),
        action("wrong_id", "05 10:20", impression_id="p9", request_id="r2"),
        action("at_the_limit", "05 11:00", impression_id="p1"),
        action("too_late", "05 11:00:01", impression_id="p1"),
        action("clocks_jitter", "05 09:59", impression_id="p1"),
        action("too_early", "05 09:58:59", impression_id="p1"),
        action("other_user", "05 10:20", impression_id="p1", user_id="v"),
        action("other_item", "05 10:20", impression_id="p1", item_id="b"),
        action("other_day", "05 10:20", impression_id="p1", event_date=march(6)),
    )
    assert found == {
        "by_id": "i1",
        "against_request": "i1",
        "wrong_id": None,
        "at_the_limit": "i1",
        "too_late": None,
        "clocks_jitter": "i1",
        "too_early": None,
        "other_user": None,
        "other_item": None,
        "other_day": None,
    }


def test_a_request_id_decides_next_and_time_last(spark: SparkSession) -> None:
    found = _attributed(
        spark,
        impression("i1", "05 10:00", request_id="r1"),
        impression("i2", "05 10:10", request_id="r2"),
        impression("i2_again", "05 10:11", request_id="r2"),
        impression("other_item", "05 10:12", request_id="r1", item_id="b"),
        action("by_request", "05 10:20", request_id="r1"),
        action("earliest_of_request", "05 10:20", request_id="r2"),
        action("wrong_request", "05 10:20", request_id="r9"),
        action("latest_before", "05 10:10:30"),
        action("same_instant", "05 10:10"),
        action("after_another_action", "05 10:20"),
        action("before_all", "05 09:59:59"),
        action("limit", "05 11:11"),
        action("too_late", "05 11:11:01"),
    )
    assert found == {
        "by_request": "i1",
        "earliest_of_request": "i2",
        "wrong_request": None,
        "latest_before": "i2",
        "same_instant": "i2",
        "after_another_action": "i2_again",
        "before_all": None,
        "limit": "i2_again",
        "too_late": None,
    }


def test_an_action_after_midnight_joins_when_filed_under_its_impression(
    spark: SparkSession,
) -> None:
    found = _attributed(
        spark,
        impression("i1", "05 23:59", impression_id="p1"),
        action("filed_with_it", "06 00:05", impression_id="p1", event_date=march(5)),
        action("filed_apart", "06 00:05", impression_id="p1"),
    )
    assert found == {"filed_with_it": "i1", "filed_apart": None}


def test_impressions_at_one_instant_are_ordered_by_event_id(spark: SparkSession) -> None:
    found = _attributed(
        spark,
        impression("i2", "05 10:00"),
        impression("i1", "05 10:00"),
        action("x", "05 10:00"),
    )
    assert found == {"x": "i2"}
