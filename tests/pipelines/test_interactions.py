"""Interactions: one labelled row per impression, in the source's local time."""

from dataclasses import replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from pipelines.cleaning import split_raw
from pipelines.interactions import DWELL_EDGES_MS, action_mask, dwell_bucket, label_impressions
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import INTERACTIONS
from tests.pipelines.log_rows import (
    BERLIN,
    CLICK,
    LIKE,
    LOG,
    action,
    impression,
    interaction_log,
    march,
    raw_log,
    utc,
)


def _labelled(spark: SparkSession, *rows: dict, manifest: SourceManifest = LOG):
    kept, _ = split_raw(raw_log(spark, *rows), items=None, manifest=manifest)
    return label_impressions(kept, manifest=manifest)


def test_an_impression_gathers_its_actions(spark: SparkSession) -> None:
    full = impression(
        "i1",
        "05 10:00",
        impression_id="i1",
        request_id="r1",
        actions=["click"],
        dwell_ms=2_000,
        duration_ms=60_000,
        position=3,
        surface="feed",
        propensity=0.5,
        is_shuffled=True,
        true_probability=0.25,
        reachable_probability=0.2,
    )
    found = _labelled(
        spark,
        full,
        action("x1", "05 10:01", "like", impression_id="i1", dwell_ms=15_000, position=9),
        action("x2", "05 10:02", "click", impression_id="i1"),
        impression("i2", "05 10:00", item_id="b"),
    )
    common = {"user_id": "u", "event_time": utc("05 10:00"), "event_date": march(5)}
    common |= {"arrival_date": march(5)}
    common |= {"local_hour": 10, "local_weekday": 1}
    first = {
        "event_id": "i1",
        "request_id": "r1",
        "item_id": "a",
        "action_bits": CLICK | LIKE,
        "dwell_ms": 15_000,
        "dwell_bucket": 5,
        "duration_ms": 60_000,
        "position": 3,
        "surface": "feed",
        "propensity": 0.5,
        "is_shuffled": True,
        "num_source_rows": 3,
        "true_probability": 0.25,
        "reachable_probability": 0.2,
    }
    second = {"event_id": "i2", "request_id": "i2", "item_id": "b", "action_bits": 0}
    second |= {"dwell_bucket": 0, "num_source_rows": 1}
    assertDataFrameEqual(found, interaction_log(spark, common | first, common | second))


def test_an_interaction_arrives_with_the_last_of_its_rows_on_a_day_of_the_zone(
    spark: SparkSession,
) -> None:
    found = _labelled(
        spark,
        impression("early", "05 10:00", arrival_time=utc("05 09:59")),
        impression("i", "05 11:00", impression_id="i", item_id="b", arrival_time=utc("05 11:01")),
        action("x", "05 11:05", impression_id="i", item_id="b", arrival_time=utc("06 22:59")),
        impression("late", "05 12:00", item_id="c", arrival_time=utc("06 23:00")),
        impression("unknown", "05 13:00", item_id="d"),
        manifest=BERLIN,
    )
    arrivals = {row.event_id: row.arrival_date for row in found.collect()}
    assert arrivals == {
        "early": march(5),
        "i": march(6),
        "late": march(7),
        "unknown": march(5),
    }


def test_an_action_after_midnight_labels_and_arrives_with_its_own_day(spark: SparkSession) -> None:
    found = _labelled(
        spark,
        impression("i", "05 23:50", arrival_time=utc("05 23:51")),
        action("i", "06 00:10", "like"),  # ids are unique within a day only
        action("y", "06 00:20"),
        action("z", "06 00:21", "click", user_id="v"),
        manifest=replace(LOG, actions_filed_apart=True),
    )
    facts = ("event_date", "arrival_date", "action_bits", "num_source_rows", "later_days")
    rows = {row.event_id: tuple(row[name] for name in facts) for row in found.collect()}
    assert rows == {"i": (march(5), march(6), CLICK | LIKE, 3, [1, 1])}


def test_day_and_daypart_follow_the_zone_through_summer_time(spark: SparkSession) -> None:
    rows = (
        impression("before", "31 00:30"),
        impression("after", "31 01:30"),
        impression("evening", "30 23:30", event_date=march(31)),
    )
    found = _labelled(spark, *rows, manifest=BERLIN).collect()
    local = {row.event_id: (row.event_date, row.local_hour, row.local_weekday) for row in found}
    assert local == {
        "evening": (march(31), 0, 6),
        "before": (march(31), 1, 6),
        "after": (march(31), 3, 6),
    }


def test_a_log_of_positives_gives_one_interaction_per_row(spark: SparkSession) -> None:
    manifest = replace(LOG, has_impressions=False)
    found = _labelled(
        spark,
        action("x", "05 10:00", "like", request_id="r"),
        action("y", "05 10:00", "click", request_id="r"),
        manifest=manifest,
    )
    rows = {row.event_id: row for row in found.collect()}
    assert {name: row.action_bits for name, row in rows.items()} == {"x": LIKE, "y": CLICK}
    assert [row.num_source_rows for row in rows.values()] == [1, 1]
    assert {row.request_id for row in rows.values()} == {"r"}


def test_source_rows_add_up_to_the_kept_rows(spark: SparkSession) -> None:
    rows = [impression(f"i{n}", f"0{n} 10:00", impression_id=f"i{n}") for n in range(1, 6)]
    rows += [action(f"x{n}", f"0{n} 10:05", impression_id=f"i{n}") for n in range(1, 4)]
    rows += [rows[0], action("orphan", "09 10:00"), impression("bad", "05 10:00", user_id=None)]
    kept, rejected = split_raw(raw_log(spark, *rows), items=None, manifest=LOG)
    found = label_impressions(kept, manifest=LOG).agg(F.sum("num_source_rows")).collect()
    assert (found[0][0], kept.count(), rejected.count(), len(rows)) == (8, 8, 3, 11)


def test_one_day_again_gives_the_same_interactions(spark: SparkSession) -> None:
    rows = [
        impression("i1", "05 10:00", impression_id="i1"),
        impression("i1", "05 10:00", impression_id="i1", dwell_ms=4, arrival_time=utc("07 10:00")),
        impression("i2", "05 23:59", impression_id="i2"),
        action("x2", "06 00:05", impression_id="i2", event_date=march(5)),
        impression("i3", "06 10:00", impression_id="i3"),
        action("x3", "06 10:01"),
    ]
    whole = _labelled(spark, *rows)
    day = _labelled(spark, *(row for row in rows if row["event_date"] == march(5)))
    assert sorted((row.event_id, row.action_bits, row.dwell_ms) for row in day.collect()) == [
        ("i1", 0, 4),
        ("i2", CLICK, None),
    ]
    assertDataFrameEqual(day, whole.where(F.col("event_date") == F.lit(march(5))))


def test_an_empty_log_gives_no_interactions(spark: SparkSession) -> None:
    found = _labelled(spark)
    assertDataFrameEqual(found, spark.createDataFrame([], INTERACTIONS.schema))


def test_dwell_buckets_begin_at_their_edges(spark: SparkSession) -> None:
    dwells = [None, 0, *(edge + step for edge in DWELL_EDGES_MS for step in (-1, 0)), 10**9]
    frame = spark.createDataFrame([(dwell,) for dwell in dwells], "dwell long")
    found = [row[0] for row in frame.select(dwell_bucket(F.col("dwell"))).collect()]
    assert found == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]


def test_action_bits_follow_the_order_of_the_manifest(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(None,), ([],), (["a"],), (["c"],), (["c", "a", "a"],)], "names array<string>"
    )
    found = frame.select(action_mask(F.col("names"), actions=("a", "b", "c"))).collect()
    assert [row[0] for row in found] == [0, 0, 1, 4, 5]
