"""TencentGR: the released parquet layout, unknown ids and actions, and missing parts."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.sources import tencentgr
from pipelines.sources.errors import SourceError
from tests.pipelines.sources.cleaned import cleaning_counts, read_events

EVENT = pa.struct([("item_id", pa.int32()), ("action_type", pa.int8()), ("timestamp", pa.int64())])
SEQUENCES = pa.schema([("user_id", pa.int64()), ("seq", pa.list_(EVENT))])
ADS = pa.schema([(name, pa.int32()) for name in ("item_id", "100", "111", "121")])
PEOPLE = pa.schema([("user_id", pa.int64()), ("103", pa.int32()), ("106", pa.list_(pa.int32()))])
START = 1_748_707_200  # 2025-06-01 00:00 in Shanghai, 2025-05-31 16:00 UTC


def _event(item: int | None, action: int | None, second: int | None) -> dict[str, int | None]:
    time = None if second is None else START + second
    return {"item_id": item, "action_type": action, "timestamp": time}


def _write(root: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), root / name / "part-0.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small release with a copy, unreadable events and unknown ids."""
    sequences = [
        {"user_id": 1, "seq": [_event(7, 0, 0), _event(8, 1, 5), _event(7, 2, 90_000)]},
        {"user_id": 2, "seq": [_event(7, 1, 9), _event(7, 1, 9), _event(7, 0, 9)]},
        {"user_id": 3, "seq": [_event(7, 9, 1), _event(8, 0, None), _event(0, 0, 1)]},
        {"user_id": 4, "seq": None},
        {"user_id": 5, "seq": []},
        {"user_id": None, "seq": [_event(7, 0, 2), _event(9, 0, 2)]},
    ]
    ads = [{"item_id": 7, "100": 3, "111": 7, "121": 0}, {"item_id": 8, "100": 4, "121": 12}]
    people = [{"user_id": 1, "103": 5, "106": [2, 0, 9]}, {"user_id": 2, "106": []}]
    _write(tmp_path, "seq", sequences, SEQUENCES)
    _write(tmp_path, "item_feat", ads, ADS)
    _write(tmp_path, "user_feat", people, PEOPLE)
    return tmp_path


def test_reads_exposures_with_what_came_of_them(spark: SparkSession, folder: Path) -> None:
    manifest, rows = read_events(spark, tencentgr, str(folder))
    assert (manifest.start_date, manifest.end_date) == (date(2025, 6, 1), date(2025, 6, 2))
    assert (manifest.actions, manifest.timezone) == (("click", "conversion"), "Asia/Shanghai")
    assert manifest.partition_unit == "day"
    assert len(rows) == 3 + 3 + 3 + 1 + 2
    first = [row for row in rows if row["user_id"] == "1"]
    assert [(row["item_id"], row["actions"]) for row in first] == [
        ("7", []),
        ("8", ["click"]),
        ("7", ["click", "conversion"]),
    ]
    assert first[0]["event_time"] == datetime(2025, 5, 31, 16)
    assert (first[2]["event_date"], first[2]["surface"]) == (date(2025, 6, 2), "ads")
    assert sorted(row["raw_text"] for row in rows if row["kind"] is None) == [
        '{"user_id":3,"event":{"item_id":7,"action_type":9,"timestamp":1748707201}}',
        '{"user_id":3,"event":{"item_id":8,"action_type":0}}',
        '{"user_id":4}',
    ]


def test_rejects_with_a_reason(spark: SparkSession, folder: Path) -> None:
    manifest = tencentgr.describe(spark, str(folder), {})
    assert cleaning_counts(spark, tencentgr, str(folder), manifest) == {
        "kept": 4,
        "exact_duplicate": 1,
        "key_duplicate": 1,
        "unparsable": 3,
        "missing_item": 1,
        "missing_user": 2,
    }


def test_reads_fields_as_features(spark: SparkSession, folder: Path) -> None:
    manifest = tencentgr.describe(spark, str(folder), {})
    seven, eight = tencentgr.items(spark, str(folder), manifest, {}).sort("item_id").collect()
    assert (seven["item_id"], seven["features"], seven["text"]) == ("7", {"field_100": "3"}, None)
    assert eight["features"] == {"field_100": "4", "field_121": "12"}
    one, two = tencentgr.users(spark, str(folder), manifest, {}).sort("user_id").collect()
    assert one["features"] == {"field_103": "5", "field_106": "2,9"}
    assert (two["user_id"], two["features"]) == ("2", {})


def test_a_release_without_conversions_names_none(spark: SparkSession, tmp_path: Path) -> None:
    _write(tmp_path, "seq", [{"user_id": 1, "seq": [_event(7, 1, 0)]}], SEQUENCES)
    manifest = tencentgr.describe(spark, str(tmp_path), {"timezone": "UTC"})
    assert (manifest.actions, manifest.start_date) == (("click",), date(2025, 5, 31))


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        ([{"user": 1}], pa.schema([("user", pa.int64())]), r"seq lacks the column 'user_id'; its"),
        (
            [{"user_id": 1, "seq": [7]}],
            pa.schema([("user_id", pa.int64()), ("seq", pa.list_(pa.int32()))]),
            r"'seq' of .* is array<int>, not a list of structs with item_id, action_type, times",
        ),
        ([{"user_id": 1, "seq": []}], SEQUENCES, r"seq has no rows; fetch it again"),
        (
            [{"user_id": 1, "seq": [_event(7, 1, START * 1_000)]}],
            SEQUENCES,
            r"no time of .*seq can be read as seconds, for example '1750",
        ),
        ([{"user_id": 1, "seq": [_event(7, 0, 0)]}], SEQUENCES, r"has the action_type 1 \(click\)"),
    ],
)
def test_names_what_is_wrong_with_the_sequences(
    spark: SparkSession, tmp_path: Path, rows: list[Any], schema: pa.Schema, message: str
) -> None:
    _write(tmp_path, "seq", rows, schema)
    with pytest.raises(SourceError, match=message):
        tencentgr.describe(spark, str(tmp_path), {})


def test_names_a_missing_folder(spark: SparkSession, folder: Path) -> None:
    manifest = tencentgr.describe(spark, str(folder), {})
    with pytest.raises(SourceError, match=r"no folder seq in .*; pass DATA=<folder of TencentGR"):
        tencentgr.describe(spark, str(folder / "seq"), {})
    (folder / "user_feat" / "part-0.parquet").write_text("not parquet")
    with pytest.raises(SourceError, match=r"cannot read .*user_feat/part-0.parquet: "):
        tencentgr.users(spark, str(folder), manifest, {})
