"""Cleaning: every raw row is kept or rejected with its first reason and its payload."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from pipelines.cleaning import REASONS, CleaningRules, split_raw
from pipelines.tables import RAW_EVENTS, REJECTED_EVENTS
from tests.pipelines.log_rows import (
    BERLIN,
    LOG,
    action,
    impression,
    march,
    raw_log,
    reasons_of,
    utc,
)

_JSON = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX", "timeZone": "UTC"}


_FAULTS = [
    ("unparsable", impression("f01", None, user_id=None, raw_text="u;;?")),
    ("missing_event_id", impression(None, "05 10:00")),
    ("unknown_kind", impression("f02", "05 10:00", kind="view")),
    ("unknown_kind", impression("f03", "05 10:00", kind=None)),
    ("missing_user", impression("f04", "05 10:00", user_id=None)),
    ("missing_user", impression("f05", "05 10:00", user_id="  ")),
    ("missing_item", impression("f06", "05 10:00", item_id=None)),
    ("missing_time", impression("f07", None)),
    ("impossible_time", impression("f08", "05 10:00", event_date=march(6))),
    ("impossible_time", impression("f09", "05 10:00", arrival_time=utc("05 09:54:59"))),
    ("out_of_range", impression("f10", "05 10:00", dwell_ms=-1)),
    ("out_of_range", impression("f11", "05 10:00", duration_ms=-1)),
    ("out_of_range", impression("f12", "05 10:00", position=-1)),
    ("out_of_range", impression("f13", "05 10:00", propensity=0.0)),
    ("out_of_range", impression("f14", "05 10:00", propensity=1.5)),
    ("out_of_range", impression("f15", "05 10:00", propensity=float("nan"))),
    ("unknown_action", impression("f16", "05 10:00", actions=["click", "buy"])),
    ("unknown_action", impression("f17", "05 10:00", actions=[None])),
    ("unknown_item", impression("f18", "05 10:00", item_id="b")),
    ("orphan_action", action("f19", "05 10:00", user_id="v")),
    ("missing_item", impression("f20", "05 10:00", item_id=None, dwell_ms=-1, actions=["buy"])),
]
_EDGES = [
    impression("e1", "05 10:00", raw_text="u;a;1709632800"),
    impression("e2", "05 10:00", arrival_time=utc("05 09:55")),
    impression("e3", "05 10:00", arrival_time=utc("29 10:00")),
    impression("e4", "05 10:00", actions=[]),
    impression("e5", "05 10:00", dwell_ms=0, duration_ms=0, position=0, propensity=1.0),
]


def test_each_fault_has_its_first_reason_and_edges_are_kept(spark: SparkSession) -> None:
    catalogue = spark.createDataFrame([("a",), ("a",)], "item_id string")
    raw = raw_log(spark, *(row for _, row in _FAULTS), *_EDGES)
    _, rejected = split_raw(raw, items=catalogue, manifest=LOG)
    found = {row.event_id: row.reason for row in rejected.select("event_id", "reason").collect()}
    assert found == {row["event_id"]: reason for reason, row in _FAULTS}
    assert set(found.values()) == set(REASONS) - {"exact_duplicate", "key_duplicate"}


def test_without_a_catalogue_no_item_is_unknown(spark: SparkSession) -> None:
    assert reasons_of(raw_log(spark, impression("x", "05 10:00", item_id="b"))) == []


def test_the_log_begins_and_ends_at_local_midnight(spark: SparkSession) -> None:
    raw = raw_log(
        spark,
        {**impression("before", "01 00:00"), "event_time": utc("01 00:00").replace(day=1, month=2)},
        impression("first", "01 00:00", event_date=march(1), event_time=utc("01 00:00")),
        impression("last", "31 21:59:59"),
        impression("after", "31 22:00"),
    )
    assert reasons_of(raw, manifest=BERLIN) == [
        ("after", "impossible_time"),
        ("before", "impossible_time"),
    ]
    assert reasons_of(raw, manifest=LOG) == [("before", "impossible_time")]


def test_a_row_is_filed_under_its_local_day(spark: SparkSession) -> None:
    raw = raw_log(
        spark,
        impression("local", "05 23:30", event_date=march(6)),
        impression("utc", "05 23:30", event_date=march(5)),
    )
    assert reasons_of(raw, manifest=BERLIN) == [("utc", "impossible_time")]
    assert reasons_of(raw, manifest=LOG) == [("local", "impossible_time")]


def test_exact_copies_are_kept_once(spark: SparkSession) -> None:
    row = impression("x", "05 10:00", actions=["click"], propensity=0.5, surface="feed")
    raw = raw_log(spark, row, row, row, impression("y", "05 10:00"))
    kept, rejected = split_raw(raw, items=None, manifest=LOG)
    assert sorted(row.event_id for row in kept.collect()) == ["x", "y"]
    assert [row.reason for row in rejected.collect()] == ["exact_duplicate", "exact_duplicate"]


def test_of_equal_keys_the_last_arrival_wins(spark: SparkSession) -> None:
    early = impression("x", "05 10:00", dwell_ms=9, arrival_time=utc("05 10:01"))
    late = impression("x", "05 10:00", dwell_ms=1, arrival_time=utc("06 10:01"))
    undated = impression("x", "05 10:00", dwell_ms=5)
    kept, rejected = split_raw(raw_log(spark, undated, late, early), items=None, manifest=LOG)
    assert [row.dwell_ms for row in kept.collect()] == [1]
    found = {json.loads(row.payload)["dwell_ms"]: row.reason for row in rejected.collect()}
    assert found == {9: "key_duplicate", 5: "key_duplicate"}


def test_copies_among_the_losers_are_told_apart(spark: SparkSession) -> None:
    low, high = (impression("x", "05 10:00", dwell_ms=dwell) for dwell in (1, 2))
    assert reasons_of(raw_log(spark, low, high, low, high)) == [
        ("x", "exact_duplicate"),
        ("x", "exact_duplicate"),
        ("x", "key_duplicate"),
    ]


def test_the_order_of_the_rows_does_not_matter(spark: SparkSession) -> None:
    rows = _messy_rows(300, seed=1)
    shuffled = random.Random(2).sample(rows, len(rows))
    kept, rejected = split_raw(raw_log(spark, *rows), items=None, manifest=LOG)
    again = split_raw(raw_log(spark, *shuffled), items=None, manifest=LOG)
    assertDataFrameEqual(again[0], kept)
    assertDataFrameEqual(again[1], rejected)


def test_a_bad_copy_does_not_displace_a_good_row(spark: SparkSession) -> None:
    good = impression("x", "05 10:00", dwell_ms=5)
    bad = impression("x", "05 10:00", dwell_ms=-5, arrival_time=utc("06 10:00"))
    kept, _ = split_raw(raw_log(spark, good, bad), items=None, manifest=LOG)
    assert [row.dwell_ms for row in kept.collect()] == [5]


def test_the_same_key_on_another_day_is_another_row(spark: SparkSession) -> None:
    assert (
        reasons_of(raw_log(spark, impression("x", "05 10:00"), impression("x", "06 10:00"))) == []
    )


def test_raw_is_kept_and_rejected_row_for_row(spark: SparkSession) -> None:
    raw = raw_log(spark, *_messy_rows(600, seed=3))
    catalogue = spark.createDataFrame([("a",), ("b",)], "item_id string")
    kept, rejected = split_raw(raw, items=catalogue, manifest=LOG)
    restored = rejected.select(F.from_json("payload", RAW_EVENTS.schema, _JSON).alias("row"))
    whole = kept.select(*RAW_EVENTS.column_names).unionByName(restored.select("row.*"))
    assertDataFrameEqual(whole, raw)
    found = {row.reason for row in rejected.select("reason").collect()}
    assert found == set(REASONS) - {"missing_event_id", "unknown_kind"}


def test_one_day_again_gives_the_same_rows(spark: SparkSession) -> None:
    raw = raw_log(spark, *_messy_rows(600, seed=4))
    kept, rejected = split_raw(raw, items=None, manifest=LOG)
    is_day = F.col("event_date") == F.lit(march(6))
    day_kept, day_rejected = split_raw(raw.where(is_day), items=None, manifest=LOG)
    assert day_kept.count() > 50
    assertDataFrameEqual(day_kept, kept.where(is_day))
    assertDataFrameEqual(day_rejected, rejected.where(is_day))


def test_an_empty_log_gives_two_empty_frames(spark: SparkSession) -> None:
    kept, rejected = split_raw(raw_log(spark), items=None, manifest=LOG)
    assert kept.columns == [*RAW_EVENTS.column_names, "interaction_id", "interaction_date"]
    assertDataFrameEqual(rejected, spark.createDataFrame([], REJECTED_EVENTS.schema))
    assert kept.count() == 0


def test_in_a_log_of_positives_each_action_stands_alone(spark: SparkSession) -> None:
    manifest = replace(LOG, has_impressions=False)
    raw = raw_log(spark, action("x", "05 10:00"), action("y", "05 10:00"))
    kept, rejected = split_raw(raw, items=None, manifest=manifest)
    found = sorted((row.event_id, row.interaction_id) for row in kept.collect())
    assert found == [("x", "x"), ("y", "y")]
    assert rejected.count() == 0


def test_the_payload_keeps_every_column_to_the_microsecond(spark: SparkSession) -> None:
    row = impression("x", "05 10:00", user_id=None, propensity=0.25, is_shuffled=True)
    row["event_time"] = row["event_time"].replace(microsecond=123456)
    _, rejected = split_raw(raw_log(spark, row), items=None, manifest=LOG)
    expected = {
        "event_id": "x",
        "kind": "impression",
        "item_id": "a",
        "event_time": "2024-03-05T10:00:00.123456Z",
        "event_date": "2024-03-05",
        "propensity": 0.25,
        "is_shuffled": True,
    }
    assert [json.loads(row.payload) for row in rejected.collect()] == [expected]


def test_rules_refuse_negative_durations() -> None:
    with pytest.raises(ValueError, match="attribution_seconds"):
        CleaningRules(attribution_seconds=-1)


def _messy_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    faults: list[dict[str, Any]] = [
        {"user_id": None},
        {"item_id": None},
        {"item_id": "zzz"},
        {"event_time": None},
        {"event_time": None, "raw_text": "?"},
        {"dwell_ms": -3},
        {"actions": ["buy"]},
        {"event_time": utc("01 00:00").replace(year=1970)},
    ]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        when = f"{chance.randint(5, 7):02d} {chance.randint(0, 23):02d}:{chance.randint(0, 59):02d}"
        make = action if chance.random() < 0.3 else impression
        row = make(f"e{number}", when, item_id=chance.choice("ab"), dwell_ms=chance.randint(0, 9))
        if chance.random() < 0.2:
            row |= chance.choice(faults)
        rows.append(row)
        if chance.random() < 0.1:
            rows.append({**row, "dwell_ms": chance.choice([row["dwell_ms"], 77])})
    return rows
