"""A user's own log: the three kinds of logs, the three formats, and what they become."""

import gzip
import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.cleaning import CleaningRules, split_raw
from pipelines.interactions import label_impressions
from pipelines.sources import mapped
from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS

LABELLED = """
log = "labelled"
timezone = "Europe/Berlin"
primary_action = "click"
positive_actions = ["click", "buy"]
[columns]
user = "user name"
item = "item"
surface = "page"
[time]
column = "at"
unit = "s"
[action.columns]
click = "clicked"
buy = "bought"
[dwell]
column = "dwell"
unit = "s"
[position]
column = "rank"
first = 1
[item]
text = "title"
tags = "tags"
tags_separator = "."
features = ["colour"]
[user]
features = ["country"]
"""
HEADER = "user name,item,page,at,clicked,bought,dwell,rank,title,tags,colour,country\n"
# 1774740600 is 2026-03-29 00:30 in Berlin, 2026-03-28 23:30 in UTC.
FIRST = 'ann,i1,home,1774740600,1,0,2.5,1,"A ""big"" day, really",a.b..a,red,DE\n'
SECOND = "bob,i1,,1774744200.5,true,1.0,,,Later title,c,blue,\n"
THIRD = "ann,i2,search,1774900000,0,,0,3,,,,FR\n"

IMPRESSIONS = """
log = "impressions"
timezone = "Europe/Berlin"
attribution_window_seconds = 3600
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "at"
format = "yyyy-MM-dd HH:mm:ss"
[action]
column = "what"
[action.names]
view = "impression"
tap = "click"
"""


def _write(folder: Path, mapping: str, log: str, *, name: str = "log.csv") -> tuple[str, dict]:
    (folder / "mapping.toml").write_text(mapping)
    (folder / name).write_text(log)
    return str(folder / name), {"mapping": str(folder / "mapping.toml")}


def _all(spark: SparkSession, path: str, options: dict) -> tuple[SourceManifest, DataFrame]:
    manifest = mapped.describe(spark, path, options)
    frame = mapped.events(
        spark, path, manifest, options, start=manifest.start_date, end=manifest.end_date
    )
    assert frame.schema.simpleString() == RAW_EVENTS.schema.simpleString()
    return manifest, frame


def _rows(frame: DataFrame) -> list[Row]:
    return frame.sort(F.col("event_time").asc_nulls_last(), "kind").collect()


def test_labelled_rows_become_impressions(spark: SparkSession, tmp_path: Path) -> None:
    path, options = _write(tmp_path, LABELLED, HEADER + FIRST + SECOND + THIRD + FIRST)
    manifest, frame = _all(spark, path, options)
    assert manifest.actions == ("click", "buy")
    assert manifest.surfaces == ("home", "search")
    assert (manifest.start_date, manifest.end_date) == (date(2026, 3, 29), date(2026, 3, 30))
    assert (manifest.partition_unit, manifest.cannot_feed) == ("day", {})
    first, copy, second, third = _rows(frame)
    assert first == copy
    assert len({row["event_id"] for row in (first, second, third)}) == 3
    assert first["event_time"] == datetime(2026, 3, 28, 23, 30)
    assert first["event_date"] == date(2026, 3, 29)
    assert [row["actions"] for row in (first, second, third)] == [["click"], ["click", "buy"], []]
    assert (first["dwell_ms"], first["position"], first["surface"]) == (2500, 0, "home")
    assert (third["dwell_ms"], third["position"]) == (0, 2)
    assert second["event_time"] == datetime(2026, 3, 29, 0, 30, 0, 500_000)
    assert second["dwell_ms"] is second["position"] is second["surface"] is None
    assert {row["kind"] for row in (first, second, third)} == {"impression"}
    assert {row["raw_text"] for row in (first, second, third)} == {None}


def test_arrival_is_unknown_where_empty_and_refused_where_impossible(
    spark: SparkSession, tmp_path: Path
) -> None:
    mapping = LABELLED.replace(
        "[position]", '[arrival]\ncolumn = "rank"\nformat = "iso"\n[position]'
    ).replace('[position]\ncolumn = "rank"\nfirst = 1\n', "")
    row = "{},i1,home,1774900000,0,,,{},,,,\n"  # 2026-03-30 21:46:40 in Berlin
    written = {
        "late": "2026-04-02T01:00:00+02:00",
        "empty": "",
        "clock": "2026-03-30T21:42:00+02:00",
        "early": "2026-03-30T21:41:00+02:00",
        "torn": "2026-03-",
    }
    log = HEADER + "".join(row.format(*each) for each in written.items())
    path, options = _write(tmp_path, mapping, log)
    manifest, frame = _all(spark, path, options)
    kept, rejected = split_raw(frame, items=None, manifest=manifest)
    labelled = label_impressions(kept, manifest=manifest).collect()
    assert {row["user_id"]: row["arrival_date"].isoformat() for row in labelled} == {
        "late": "2026-04-02",
        "empty": "2026-03-30",
        "clock": "2026-03-30",
    }
    refused = {json.loads(row["payload"])["user_id"]: row["reason"] for row in rejected.collect()}
    assert refused == {"early": "impossible_time", "torn": "unparsable"}


def test_items_and_users_of_the_log_take_their_earliest_values(
    spark: SparkSession, tmp_path: Path
) -> None:
    path, options = _write(tmp_path, LABELLED, HEADER + SECOND + THIRD + FIRST)
    manifest = mapped.describe(spark, path, options)
    one, two = mapped.items(spark, path, manifest, options).sort("item_id").collect()
    assert (one["item_id"], one["text"]) == ("i1", 'A "big" day, really')
    assert (one["tags"], one["features"]) == (["a", "b"], {"colour": "red"})
    assert (two["item_id"], two["text"], two["tags"], two["features"]) == ("i2", None, [], {})
    users = mapped.users(spark, path, manifest, options).sort("user_id").collect()
    assert [(row["user_id"], row["features"]) for row in users] == [
        ("ann", {"country": "DE"}),
        ("bob", {}),
    ]


def test_rows_that_cannot_be_read_keep_their_text(spark: SparkSession, tmp_path: Path) -> None:
    bad = (
        FIRST.replace("1774740600", "soon")
        + FIRST.replace(",1,0,2.5", ",2,0,2.5")
        + FIRST.replace("2.5", "long")
        + FIRST.replace(",1,", ",first,", 1)
        + "ann,i1\n"
        + FIRST.replace("1774740600", "99999999999999999999")
        + FIRST.replace("1774740600", "")
    )
    path, options = _write(tmp_path, LABELLED, HEADER + FIRST + THIRD + bad)
    manifest, frame = _all(spark, path, options)
    rows = frame.collect()
    assert len(rows) == 9
    broken = [row for row in rows if row["kind"] is None]
    assert len(broken) == 7
    assert all(row["raw_text"] for row in broken)
    # "1" to "first" hits the flag of the click, which then says neither yes nor no.
    for word in ("soon", '"clicked":"2"', '"long"', '"first"', "ann,i1", "99999999999999999999"):
        assert any(word in row["raw_text"] for row in broken)
    kept, rejected = split_raw(frame, items=None, manifest=manifest)
    assert kept.count() == 2
    assert [row["reason"] for row in rejected.collect()] == ["unparsable"] * 7


def test_actions_are_filed_and_joined_with_impressions_over_midnight(
    spark: SparkSession, tmp_path: Path
) -> None:
    log = (
        "user,item,at,what\n"
        "ann,i1,2026-03-28 23:50:00,view\n"
        "ann,i1,2026-03-29 00:10:00,tap\n"  # of the impression before midnight
        "ann,i1,2026-03-29 00:20:00,view\n"
        "ann,i1,2026-03-29 00:20:00,share\n"  # of the impression at the same time
        "bob,i1,2026-03-29 00:55:00,tap\n"  # no impression at all
        "ann,i1,2026-03-29 03:10:00,tap\n"  # 110 minutes later by the sun: out of reach
        "bob,i2,2026-03-29 01:50:00,view\n"
        "bob,i2,2026-03-29 03:05:00,tap\n"  # 15 minutes later: the clock skipped an hour
    )
    path, options = _write(tmp_path, IMPRESSIONS, log)
    manifest, frame = _all(spark, path, options)
    assert manifest.actions == ("click", "share")
    assert (manifest.start_date, manifest.end_date) == (date(2026, 3, 28), date(2026, 3, 29))
    day_one, day_two = date(2026, 3, 28), date(2026, 3, 29)
    filed = [(row["kind"], row["event_date"], row["actions"]) for row in _rows(frame)]
    assert filed[:4] == [
        ("impression", day_one, []),
        ("action", day_two, ["click"]),
        ("action", day_two, ["share"]),
        ("impression", day_two, []),
    ]
    rules = CleaningRules(attribution_seconds=3600)
    kept, rejected = split_raw(frame, items=None, manifest=manifest, rules=rules)
    labelled = label_impressions(kept, manifest=manifest).sort("event_time").collect()
    assert [row["action_bits"] for row in labelled] == [1, 2, 1]
    assert [row["num_source_rows"] for row in labelled] == [2, 2, 2]
    assert [row["later_days"] for row in labelled] == [[1], None, None]
    assert [row["reason"] for row in rejected.collect()] == ["orphan_action"] * 2
    older = replace(manifest, actions_filed_apart=False)
    with pytest.raises(SourceError, match="start over with make clean-data"):
        mapped.events(spark, path, older, options, start=day_one, end=day_two)


def test_one_day_read_alone_equals_its_part_of_the_whole(
    spark: SparkSession, tmp_path: Path
) -> None:
    log = "user,item,at,what\n" + "".join(
        f"u{place % 2},i{place % 3},2026-03-{27 + place // 9} {place % 24:02d}:5{place % 10}:00,"
        f"{'view' if place % 3 else 'tap'}\n"
        for place in range(36)
    )
    path, options = _write(tmp_path, IMPRESSIONS, log)
    manifest, frame = _all(spark, path, options)
    whole = sorted(frame.collect(), key=str)
    days = sorted({row["event_date"] for row in whole})
    alone = [
        row
        for day in days
        for row in mapped.events(spark, path, manifest, options, start=day, end=day).collect()
    ]
    assert len(days) == 4
    assert sorted(alone, key=str) == whole


def test_impression_ids_name_the_impression(spark: SparkSession, tmp_path: Path) -> None:
    mapping = IMPRESSIONS.replace('item = "item"', 'item = "item"\nimpression = "imp"')
    log = (
        "user,item,imp,at,what\n"
        "ann,i1,x1,2026-03-28 23:59:59,view\n"
        "ann,i1,x2,2026-03-29 00:00:01,view\n"
        "ann,i1,x1,2026-03-29 00:10:00,tap\n"
    )
    path, options = _write(tmp_path, mapping, log)
    _, frame = _all(spark, path, options)
    first, _, tap = _rows(frame)
    assert (first["event_id"], first["impression_id"]) == ("x1", "x1")
    assert tap["impression_id"] == "x1"
    assert tap["event_id"] not in ("x1", "x2")
    assert tap["event_date"] == date(2026, 3, 29)  # its own day, not that of its impression


def test_positives_only_says_what_it_cannot_feed(spark: SparkSession, tmp_path: Path) -> None:
    mapping = """
log = "positives_only"
primary_action = "buy"
[columns]
user = "user"
item = "item"
[time]
column = "at"
format = "iso"
"""
    log = "user,item,at\nann,i1,2026-03-01T10:00:00Z\nbob,i2,2026-03-02\n"
    path, options = _write(tmp_path, mapping, log)
    manifest, frame = _all(spark, path, options)
    assert manifest.has_impressions is False
    assert manifest.actions == ("buy",)
    for asset in ("ranker", "ranking_evaluation", "prompt_ranker", "expert_plan"):
        assert "positives only" in manifest.cannot_feed[asset]
    # It names no words of items either.
    assert "names no text" in manifest.cannot_feed["semantic_ids"]
    rows = _rows(frame)
    assert [(row["kind"], row["actions"]) for row in rows] == [("action", ["buy"])] * 2
    assert rows[1]["event_time"] == datetime(2026, 3, 2)
    kept, _ = split_raw(frame, items=None, manifest=manifest)
    labelled = label_impressions(kept, manifest=manifest).collect()
    assert [row["action_bits"] for row in labelled] == [1, 1]


def test_json_lines_in_a_folder_are_read(spark: SparkSession, tmp_path: Path) -> None:
    data = tmp_path / "data [1]*"
    data.mkdir()
    one = {"user name": "ann", "item": 7, "page": None, "at": 1774740600, "clicked": True}
    two = {"user name": "bob", "item": 8, "at": "1774744200", "clicked": 0, "bought": 1}
    extra = {"dwell": 2.5, "rank": 1, "title": "T", "tags": ["x", "y"], "colour": "c"}
    (data / "a.jsonl").write_text(json.dumps(one) + "\n\n{broken\n")
    with gzip.open(data / "b.jsonl.gz", "wt") as lines:
        lines.write(json.dumps(two | extra | {"country": "DE"}) + "\n")
    (data / "_SUCCESS").write_text("")
    (tmp_path / "mapping.toml").write_text(LABELLED)
    options = {"mapping": str(tmp_path / "mapping.toml")}
    manifest, frame = _all(spark, str(data), options)
    ann, bob, broken = _rows(frame)
    assert (ann["user_id"], ann["item_id"], ann["actions"]) == ("ann", "7", ["click"])
    assert (bob["actions"], bob["dwell_ms"], bob["position"]) == (["buy"], 2500, 0)
    assert (broken["kind"], broken["raw_text"]) == (None, "{broken")
    seven, eight = mapped.items(spark, str(data), manifest, options).sort("item_id").collect()
    assert (seven["tags"], eight["tags"]) == ([], ["x", "y"])


def test_parquet_timestamps_and_arrays_need_no_format(spark: SparkSession, tmp_path: Path) -> None:
    mapping = LABELLED.replace('unit = "s"\n[action', 'timezone = "Europe/Berlin"\n[action')
    (tmp_path / "mapping.toml").write_text(mapping)
    rows = [
        ("ann", 1, "home", "2026-03-28 23:30:00", 1, False, 2.5, 1, "T", ["x"], "red", "DE"),
        ("bob", 2, "home", "2026-03-29 23:30:00", 0, True, None, None, "T", [], "red", "DE"),
    ]
    schema = (
        "`user name` string, item int, page string, at string, clicked int, bought boolean, "
        "dwell double, rank long, title string, tags array<string>, colour string, country string"
    )
    frame = spark.createDataFrame(rows, schema).withColumn("at", F.col("at").cast("timestamp"))
    frame.coalesce(1).write.parquet(str(tmp_path / "log"))
    wall_clock = F.col("at").cast("timestamp_ntz")
    frame.withColumn("at", wall_clock).coalesce(1).write.parquet(str(tmp_path / "local"))
    options = {"mapping": str(tmp_path / "mapping.toml")}
    manifest, events = _all(spark, str(tmp_path / "log"), options)
    ann, bob = _rows(events)
    assert ann["event_time"] == datetime(2026, 3, 28, 23, 30)
    assert (ann["actions"], ann["dwell_ms"], bob["actions"]) == (["click"], 2500, ["buy"])
    item = mapped.items(spark, str(tmp_path / "log"), manifest, options).sort("item_id").first()
    assert item is not None
    assert item["tags"] == ["x"]
    _, local = _all(spark, str(tmp_path / "local"), options)
    assert [row["event_time"] for row in _rows(local)] == [
        datetime(2026, 3, 28, 22, 30),  # winter time
        datetime(2026, 3, 29, 21, 30),  # summer time
    ]


def test_documented_example_is_labelled_whole(spark: SparkSession, checkout: Path) -> None:
    folder = checkout / "examples"
    options = {"mapping": str(folder / "mapping.toml")}
    manifest, frame = _all(spark, str(folder / "events.csv"), options)
    assert manifest.actions == ("click", "share")
    assert manifest.surfaces == ("front", "topic")
    assert (manifest.start_date, manifest.end_date) == (date(2026, 3, 26), date(2026, 4, 1))
    assert (manifest.timezone, manifest.maturity_seconds) == ("Europe/Berlin", 3600)
    items = mapped.items(spark, str(folder / "events.csv"), manifest, options)
    kept, rejected = split_raw(frame, items=items, manifest=manifest)
    assert rejected.count() == 0
    labelled = label_impressions(kept, manifest=manifest).toPandas()
    text = (folder / "events.csv").read_text()
    assert len(labelled) == text.count(",view,")
    assert (labelled["action_bits"] & 1 > 0).sum() == text.count(",click,")
    assert labelled["position"].min() == 0
    first = items.sort("item_id").first()
    assert first is not None
    assert first["text"].startswith("Tram line to the harbour opens A new line")
    assert first["created_time"] == datetime(2026, 3, 20, 5)
    assert first["features"] == {"minutes_to_read": "2"}
    changed = items.where("item_id = 'a12'").sort(F.col("valid_from").asc_nulls_first()).collect()
    assert [(row["valid_from"], row["author_id"]) for row in changed] == [
        (None, "Ines"),
        (datetime(2026, 3, 27, 7, 30), "Ines"),
        (datetime(2026, 3, 30, 10), "Mara"),
    ]


def test_profiles_of_a_file_change_and_a_time_that_cannot_be_read_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    mapping = LABELLED[: LABELLED.index("[user]")]
    mapping += '[user]\nfile = "users.csv"\nid = "who"\ntext = ["about"]\n'
    mapping += '[user.valid_from]\ncolumn = "since"\nunit = "s"\n'
    path, options = _write(tmp_path, mapping, HEADER + FIRST + THIRD)
    profiles = "who,about,since\nann,new,1774740600\nann,old,\n"
    (tmp_path / "users.csv").write_text(profiles)
    manifest = mapped.describe(spark, path, options)
    users = mapped.users(spark, path, manifest, options).collect()
    assert {(row["valid_from"], row["text"]) for row in users} == {
        (None, "old"),
        (datetime(2026, 3, 28, 23, 30), "new"),
    }
    (tmp_path / "users.csv").write_text(profiles + "bob,x,last week\n")
    with pytest.raises(SourceError, match=r"user\.valid_from .* column 'since' holds 'last week'"):
        mapped.users(spark, path, manifest, options)
    (tmp_path / "users.csv").write_text(profiles + "bob,x\n")
    with pytest.raises(SourceError, match=r"column 'since' holds None; correct the row"):
        mapped.users(spark, path, manifest, options)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_days_follow_the_setting(spark: SparkSession, tmp_path: Path, zone: str) -> None:
    path, options = _write(tmp_path, LABELLED, HEADER + FIRST + THIRD)
    manifest = mapped.describe(spark, path, options | {"timezone": zone})
    assert manifest.timezone == zone
    expected = {"UTC": date(2026, 3, 28), "Asia/Kolkata": date(2026, 3, 29)}
    assert manifest.start_date == expected[zone]
