"""Versions: no gap, no overlap, one at every instant, and the same whatever the order of rows."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.daypart import start_of_day
from pipelines.items import build_item_versions, build_items
from pipelines.users import build_user_versions, build_users
from pipelines.versions import as_of
from tests.pipelines.log_rows import LOG, interaction_log, item_day_log, march, shown, utc

_NAMES = (
    "item_id",
    "valid_from",
    "created_time",
    "author_id",
    "tags",
    "text",
    "duration_ms",
    "features",
)
_CATALOGUE = (
    "item_id string, valid_from timestamp, created_time timestamp, author_id string, "
    "tags array<string>, text string, duration_ms bigint, features map<string,string>"
)
_PROFILES = "user_id string, valid_from timestamp, text string, features map<string,string>"
_BOUNDARY = "20 00:00"  # the validation split of LOG begins


def _rows() -> list[dict[str, Any]]:
    """Return the catalogue of this module: one item per case."""
    ten, twelve = utc("10 12:00"), utc("12 12:00")
    return [
        {"item_id": "plain", "text": "one"},
        {"item_id": "changed", "text": "old", "tags": ["t"], "features": {"a": "1", "b": "2"}},
        {"item_id": "changed", "valid_from": ten, "text": "new", "tags": ["t"]},
        {"item_id": "changed", "valid_from": twelve, "text": "old", "tags": ["t"]},
        {"item_id": "same", "text": "one", "features": {"a": "1", "b": "2"}},
        {"item_id": "same", "valid_from": ten, "text": "one", "features": {"b": "2", "a": "1"}},
        {"item_id": "same", "valid_from": twelve, "text": "one", "features": {"a": "1", "b": "3"}},
        {"item_id": "empty", "valid_from": ten, "tags": [], "features": {}},
        {"item_id": "tied", "valid_from": ten, "text": "a"},
        {"item_id": "tied", "valid_from": ten, "text": "b"},
        {"item_id": "tied", "valid_from": ten, "text": "b"},
        {"item_id": "born", "created_time": ten, "valid_from": ten, "text": "first"},
        {"item_id": "born", "created_time": ten, "valid_from": utc("26 00:00"), "text": "then"},
        {"item_id": "late", "valid_from": utc(_BOUNDARY), "text": "in the validation split"},
        {"item_id": "unseen", "valid_from": utc(_BOUNDARY), "text": "in the validation split"},
        {"item_id": "ahead", "text": "now"},
        {"item_id": "ahead", "valid_from": datetime(2024, 4, 1, tzinfo=UTC), "text": "in April"},
        {"item_id": "ahead", "valid_from": datetime(2024, 3, 31, 23, tzinfo=UTC), "text": "last"},
        {"item_id": None, "text": "nobody"},
    ]


def _item_days(spark: SparkSession) -> DataFrame:
    seen = [("plain", 5), ("log only", 5), ("late", 19), ("unseen", 20)]
    common = {"impressions": 1, "action_counts": [0, 0]}
    return item_day_log(
        spark,
        *(
            {
                "item_id": name,
                "event_date": march(day),
                "arrival_date": march(day),
                "first_event_time": utc(f"{day} 12:00") if day > 9 else utc(f"0{day} 12:00"),
                **common,
            }
            for name, day in seen
        ),
    )


def _versions(spark: SparkSession, rows: list[dict[str, Any]]) -> list[Row]:
    values = [tuple(row.get(name) for name in _NAMES) for row in rows]
    catalogue = spark.createDataFrame(values, _CATALOGUE)
    return build_item_versions(catalogue, _item_days(spark), manifest=LOG).collect()


@pytest.fixture(scope="module")
def versions(spark: SparkSession) -> dict[str, list[Row]]:
    """Build the versions of this module, each item's in order of time."""
    found: dict[str, list[Row]] = {}
    for row in sorted(_versions(spark, _rows()), key=_since):
        found.setdefault(row.item_id, []).append(row)
    return found


def _since(row: Row) -> datetime:
    return row.valid_from or datetime.min


def _spans(rows: list[Row]) -> list[tuple[Any, ...]]:
    def text(time: datetime | None) -> str | None:
        return None if time is None else f"{time:%d %H:%M}"

    return [(text(row.valid_from), text(row.valid_to), row.text) for row in rows]


def test_each_change_begins_a_version_and_ends_the_one_before(
    versions: dict[str, list[Row]],
) -> None:
    assert _spans(versions["changed"]) == [
        (None, "10 12:00", "old"),
        ("10 12:00", "12 12:00", "new"),
        ("12 12:00", None, "old"),
    ]
    assert _spans(versions["plain"]) == [(None, None, "one")]
    assert _spans(versions["log only"]) == [(None, None, None)]


def test_equal_neighbours_are_one_version(versions: dict[str, list[Row]]) -> None:
    assert [(row.valid_from, row.features["b"]) for row in versions["same"]] == [
        (None, "2"),
        (utc("12 12:00").replace(tzinfo=None), "3"),
    ]
    assert _spans(versions["empty"]) == [(None, None, None)]


def test_nothing_is_known_before_the_first_time_and_of_a_tie_the_greatest_is_taken(
    versions: dict[str, list[Row]],
) -> None:
    assert _spans(versions["tied"]) == [(None, "10 12:00", None), ("10 12:00", None, "b")]
    first, described, _ = versions["born"]
    assert (first.created_time, described.created_time) == (None, described.valid_from)


def test_identity_is_the_first_description_and_never_from_after_the_boundary(
    versions: dict[str, list[Row]],
) -> None:
    texts = {name: [row.text for row in rows if row.is_identity] for name, rows in versions.items()}
    assert texts == {
        "plain": ["one"],
        "changed": ["old"],
        "same": ["one"],
        "empty": [None],
        "tied": ["b"],
        "born": ["first"],
        "late": [None],  # was shown in the training period, when nothing was known of it
        "unseen": ["in the validation split"],
        "ahead": ["now"],
        "log only": [None],
    }


def test_order_of_the_rows_changes_nothing(
    spark: SparkSession, versions: dict[str, list[Row]]
) -> None:
    rows = _rows() + _rows()[3:9]
    random.Random(3).shuffle(rows)
    expected = sorted(repr(row) for of_item in versions.values() for row in of_item)
    assert sorted(map(repr, _versions(spark, rows))) == expected
    numbers = {rows[0].item_index: name for name, rows in versions.items()}
    assert [numbers[n] for n in sorted(numbers)] == sorted(versions)


def test_items_are_as_of_the_end_of_the_log(spark: SparkSession) -> None:
    item_days = _item_days(spark)
    values = [tuple(row.get(name) for name in _NAMES) for row in _rows()]
    catalogue = spark.createDataFrame(values, _CATALOGUE)
    found = build_item_versions(catalogue, item_days, manifest=LOG)
    items = {row.item_id: row for row in build_items(found, item_days, manifest=LOG).collect()}
    assert items["ahead"].text == "last"
    assert (items["changed"].text, items["born"].text, items["log only"].text) == (
        "old",
        "then",
        None,
    )
    assert items["late"].first_seen_time == datetime(2024, 3, 19, 12)
    assert len(items) == 10


def test_users_have_versions_and_a_row_of_the_end(spark: SparkSession) -> None:
    rows = [
        ("b", None, "old", None),
        ("b", utc("10 12:00"), "new", {"age": "30"}),
        ("a", utc("10 12:00"), "known late", None),
        (None, None, "nobody", None),
    ]
    log = interaction_log(spark, shown("1", "x", 5, user_id="c"))
    found = build_user_versions(spark.createDataFrame(rows, _PROFILES), log)
    by_user = sorted(found.collect(), key=lambda row: (row.user_id, _since(row)))
    assert [(row.user_id, row.text) for row in by_user] == [
        ("a", None),
        ("a", "known late"),
        ("b", "old"),
        ("b", "new"),
        ("c", None),
    ]
    users = build_users(found, manifest=LOG).collect()
    assert {(row.user_id, row.user_index, row.text) for row in users} == {
        ("a", 1, "known late"),
        ("b", 2, "new"),
        ("c", 3, None),
    }


def test_each_row_meets_the_one_version_of_its_moment(spark: SparkSession) -> None:
    spans = spark.createDataFrame(
        [
            ("x", None, utc("10 12:00"), "old"),
            ("x", utc("10 12:00"), utc("12 12:00"), "new"),
            ("x", utc("12 12:00"), None, "newest"),
            ("y", None, None, "only"),
        ],
        "id string, valid_from timestamp, valid_to timestamp, text string",
    )
    instant = timedelta(microseconds=1)
    moments = {
        "before": ("x", utc("10 12:00") - instant),
        "at the start": ("x", utc("10 12:00")),
        "at the end": ("x", utc("12 12:00") - instant),
        "after": ("x", utc("12 12:00")),
        "one": ("y", utc("12 12:00")),
        "unknown": ("z", utc("12 12:00")),
    }
    rows = spark.createDataFrame(
        [(name, id_, time) for name, (id_, time) in moments.items()],
        "name string, id string, time timestamp",
    ).withColumn("moment", F.unix_micros("time"))
    undated = rows.where("name = 'after'").withColumns(
        {"name": F.lit("undated"), "moment": F.lit(-(2**62) + 3)}
    )
    joined = as_of(rows.unionByName(undated), spans, key="id").collect()
    assert sorted((row.name, row.text) for row in joined) == [
        ("after", "newest"),
        ("at the end", "new"),
        ("at the start", "new"),
        ("before", "old"),
        ("one", "only"),
        ("undated", "old"),
        ("unknown", None),
    ]


def test_a_day_begins_at_its_local_midnight_or_after_the_gap_there(spark: SparkSession) -> None:
    days = spark.createDataFrame([(march(31),)], "day date")
    begun = {
        "UTC": datetime(2024, 3, 31),
        "Europe/Berlin": datetime(2024, 3, 30, 23),
        "Asia/Beirut": datetime(2024, 3, 30, 22),  # clocks went from 0:00 to 1:00
    }
    columns = [start_of_day(F.col("day"), zone=zone).alias(zone) for zone in begun]
    found = days.select(*columns).first()
    assert found is not None and found.asDict() == begun
