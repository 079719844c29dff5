"""A small arrival log: raw rows with late ones, copies, corrections and ties, drawn at random.

One of `NIGHTS` has impressions up to midnight, and action rows of their own days, up to two later.
"""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS

START = date(2024, 3, 1)
DAYS = 6
MANIFEST = SourceManifest(
    source="mapped",
    actions=("click", "like"),
    primary_action="click",
    positive_actions=("click", "like"),
    surfaces=("feed",),
    start_date=START,
    end_date=START + timedelta(days=DAYS - 1),
    validation_start=datetime(2024, 3, 4, tzinfo=UTC),
    test_start=datetime(2024, 3, 5, tzinfo=UTC),
)
NIGHTS = replace(MANIFEST, attribution_window_seconds=36 * 3_600, actions_filed_apart=True)
ITEM_IDS = tuple("abcdefg")  # the catalogue holds all but the last, and one from a day on
_USERS = ("u1", "u2", "u3", "u4")
_CATALOGUE = (
    "item_id string, valid_from timestamp, created_time timestamp, author_id string, "
    "tags array<string>, text string, duration_ms bigint"
)

Row = dict[str, Any]


def day(number: int) -> date:
    """Return a day of the log, 1 being the first."""
    return START + timedelta(days=number - 1)


def draw_log(seed: int, *, per_day: int = 14, manifest: SourceManifest = MANIFEST) -> list[Row]:
    """Draw the log; about a fifth of the rows arrive one to four days late."""
    chance = random.Random(seed)
    rows: list[Row] = []
    for number in range(1, DAYS + 1):
        for place in range(per_day):
            rows += _impression(chance, number, place)
    if not manifest.actions_filed_apart:
        return rows
    moved = [_by_night(chance, row) for row in rows]
    return [row for row in moved if row["event_date"] <= MANIFEST.end_date]


def arrived(rows: list[Row], *, before: date) -> list[Row]:
    """Return the rows that had arrived before a day began."""
    return [row for row in rows if row["arrival_time"].date() < before]


def raw_frame(spark: SparkSession, rows: list[Row]) -> DataFrame:
    """Return rows of `RAW_EVENTS`."""
    values = [tuple(row.get(name) for name in RAW_EVENTS.column_names) for row in rows]
    return spark.createDataFrame(values, RAW_EVENTS.schema).coalesce(1)


def catalogue(spark: SparkSession) -> DataFrame:
    """Return the catalogue; some items have a creation time, some change, one is not in it."""
    rows = [
        (item, None, _created(place), "w", ["t"], item, 900)
        for place, item in enumerate(ITEM_IDS[:-2])
    ]
    rows += [
        ("a", _noon(3), _noon(1), "w", ["t"], "a anew", 900),
        ("b", _noon(2), None, "w", ["t", "u"], "b anew", 60_000),
        ("b", _noon(5), _noon(5), "v", ["u"], "b again", 60_000),
        ("f", _noon(4), None, "w", ["t"], "f at last", None),
    ]
    return (
        spark.createDataFrame(rows, _CATALOGUE).coalesce(1).withColumn("features", _no_features())
    )


def profiles(spark: SparkSession) -> DataFrame:
    """Return the users' profiles, one of which changes."""
    rows = [("u1", None, "likes boats"), ("u1", _noon(3), "likes trains")]
    frame = spark.createDataFrame(rows, "user_id string, valid_from timestamp, text string")
    return frame.coalesce(1).withColumn("features", _no_features())


def _no_features() -> Column:
    return F.lit(None).cast("map<string,string>")


def _created(place: int) -> datetime | None:
    return None if place % 2 else _noon(1) - timedelta(days=place)


def _impression(chance: random.Random, number: int, place: int) -> list[Row]:
    """Draw an impression, perhaps with an action row, a copy or a corrected copy."""
    time = _noon(number) + timedelta(minutes=10 * chance.randrange(12))  # ties are frequent
    row: Row = {
        "event_id": f"e{number}-{place}",
        "kind": "impression",
        "impression_id": f"e{number}-{place}",
        "user_id": chance.choice(_USERS),
        "item_id": chance.choice(ITEM_IDS),
        "event_time": time,
        "arrival_time": time + _delay(chance),
        "event_date": day(number),
        "position": chance.randrange(4),
        "surface": "feed",
    }
    rows = [row]
    if chance.random() < 0.4:
        clicked = time + timedelta(minutes=chance.randrange(30))
        action = {**row, "event_id": f"a{number}-{place}", "kind": "action", "position": None}
        action |= {"event_time": clicked, "arrival_time": clicked + _delay(chance)}
        rows.append({**action, "actions": [chance.choice(["click", "like"])]})
    if chance.random() < 0.2:
        rows.append(dict(row))
    if chance.random() < 0.2:
        rows.append({**row, "position": 9, "arrival_time": row["arrival_time"] + _delay(chance)})
    return rows


def _by_night(chance: random.Random, row: Row) -> Row:
    """Move a row's noon to late evening; let some actions come days later, and lose their ids."""
    later = timedelta(hours=10)
    if row["kind"] == "action":
        later += timedelta(minutes=chance.randrange(20))
        later += timedelta(hours=chance.choice((0, 0, 0, 24, 30)))
        row = row | ({"impression_id": None} if chance.random() < 0.4 else {})
    times = {name: row[name] + later for name in ("event_time", "arrival_time")}
    return row | times | {"event_date": times["event_time"].date()}


def _delay(chance: random.Random) -> timedelta:
    late = timedelta(days=chance.randint(1, 4)) if chance.random() < 0.2 else timedelta()
    return late + timedelta(seconds=chance.randint(1, 50))


def _noon(number: int) -> datetime:
    return datetime.combine(day(number), datetime.min.time(), UTC) + timedelta(hours=12)
