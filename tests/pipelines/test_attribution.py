"""Attribution: which impression an action belongs to, tier by tier."""

from dataclasses import replace
from datetime import date

import pytest
from pyspark.sql import SparkSession

from pipelines.attribution import attribute_actions, first_reached_day, last_reached_day
from tests.pipelines.log_rows import BERLIN, action, impression, march, raw_log


def _attributed(
    spark: SparkSession, *rows: dict, seconds: int = 3600, across_days: bool = False
) -> dict[str, str | None]:
    found = attribute_actions(
        raw_log(spark, *rows),
        attribution_seconds=seconds,
        clock_tolerance_seconds=60,
        across_days=across_days,
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


def test_an_action_filed_under_a_later_day_joins_where_days_are_crossed(
    spark: SparkSession,
) -> None:
    by_id = {"impression_id": "p1", "item_id": "b"}
    by_request = {"request_id": "r1", "item_id": "c"}
    found = _attributed(
        spark,
        impression("i1", "05 23:30"),
        impression("i2", "06 00:10"),
        action("of_the_night", "06 00:09"),
        action("of_its_own_day", "06 00:10"),
        action("limit", "06 01:10"),
        action("too_late", "06 01:10:01"),
        impression("b1", "05 23:30", **by_id),
        impression("b1_again", "05 23:40", **by_id),
        action("earliest_of_the_day_before", "06 00:30", **by_id),
        action("too_late_by_id", "06 00:30:01", **by_id),
        action("clock_before_midnight", "04 23:59:30", **by_id),
        impression("c4", "04 23:00", **by_request),
        impression("c5", "05 23:50", **by_request),
        impression("c6", "06 00:20", **by_request),
        action("own_day_first", "06 00:19:30", **by_request),
        action("latest_day_before", "06 00:10", **by_request),
        action("days_apart", "05 00:00", **by_request),
        across_days=True,
    )
    assert found == {
        "of_the_night": "i1",
        "of_its_own_day": "i2",
        "limit": "i2",
        "too_late": None,
        "earliest_of_the_day_before": "b1",
        "too_late_by_id": None,
        "clock_before_midnight": None,
        "own_day_first": "c6",
        "latest_day_before": "c5",
        "days_apart": "c4",
    }


def test_a_long_window_reaches_over_several_midnights(spark: SparkSession) -> None:
    rows = (
        impression("i", "05 12:00", impression_id="p"),
        action("x", "07 12:00", impression_id="p"),
        action("y", "07 12:00"),
        action("z", "07 12:00:01", impression_id="p"),
    )
    found = _attributed(spark, *rows, seconds=2 * 86_400, across_days=True)
    assert found == {"x": "i", "y": "i", "z": None}


@pytest.mark.parametrize(
    ("seconds", "day", "first", "last"),
    [
        (1_800, 10, 9, 11),
        (86_400, 10, 9, 11),
        (86_401, 10, 8, 12),
        (86_400, 31, 30, 31),
        (86_400, 30, 29, 31),
        (86_400, 1, 1, 2),
        (0, 10, 10, 10),
    ],
)
def test_the_days_that_the_window_reaches(seconds: int, day: int, first: int, last: int) -> None:
    manifest = replace(BERLIN, attribution_window_seconds=seconds, actions_filed_apart=True)
    assert first_reached_day(march(day), manifest=manifest) == march(first)
    assert last_reached_day(march(day), manifest=manifest) == march(last)
    together = replace(manifest, actions_filed_apart=False)
    assert first_reached_day(march(day), manifest=together) == march(day)
    assert last_reached_day(march(day), manifest=together) == march(day)


def test_a_short_day_is_reached_over(spark: SparkSession) -> None:
    whole_day = {"attribution_window_seconds": 86_400, "actions_filed_apart": True}
    manifest = replace(BERLIN, end_date=date(2024, 4, 30), **whole_day)
    assert first_reached_day(date(2024, 4, 1), manifest=manifest) == march(30)
    assert last_reached_day(march(30), manifest=manifest) == date(2024, 4, 1)


def test_impressions_at_one_instant_are_ordered_by_event_id(spark: SparkSession) -> None:
    found = _attributed(
        spark,
        impression("i2", "05 10:00"),
        impression("i1", "05 10:00"),
        action("x", "05 10:00"),
    )
    assert found == {"x": "i2"}
