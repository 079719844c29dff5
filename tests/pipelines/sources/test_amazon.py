"""Amazon reviews: the keys of both releases, bad lines, and what metadata may hold."""

import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.sources import amazon
from pipelines.sources.errors import SourceError
from tests.pipelines.sources.cleaned import cleaning_counts, read_events

# 1588687728923 is 2020-05-05 14:08:48.923 UTC.
REVIEW_2023: dict[str, Any] = {
    "rating": 5.0,
    "title": "Such a lovely scent",
    "text": "Nice.",
    "images": [],
    "asin": "B00YQ6X8EO",
    "parent_asin": "B0PARENT01",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
    "timestamp": 1588687728923,
    "helpful_vote": 0,
    "verified_purchase": True,
}
META_2023: dict[str, Any] = {
    "main_category": "All Beauty",
    "title": "Howard Feed-N-Wax",
    "average_rating": 4.8,
    "store": "Howard Products",
    "categories": ["Beauty", "Skin <b>Care</b>", "Beauty", "</span>"],
    "details": {"Brand": "Howard"},
    "parent_asin": "B0PARENT01",
}
# 1393545600 is 2014-02-28 00:00:00 UTC.
REVIEW_2018: dict[str, Any] = {
    "overall": 3.0,
    "verified": True,
    "reviewTime": "02 28, 2014",
    "reviewerID": "A1QY6HD8YVNB5",
    "asin": "B000FI4S1E",
    "reviewerName": "A Reader",
    "unixReviewTime": 1393545600,
}
META_2018: dict[str, Any] = {
    "category": [],
    "title": "  Soap &amp; Water ",
    "brand": "Pre",
    "main_cat": '<img src="x.png" alt="Beauty"/>',
    "price": "$1.99",
    "asin": "B000FI4S1E",
}


def _lines(*rows: dict[str, Any] | str) -> str:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return "".join(f"{text}\n" for text in texts)


@pytest.fixture
def folder_2023(tmp_path: Path) -> str:
    """Write a small category of 2023, packed as published, with bad lines and a copy."""
    reviews = _lines(
        REVIEW_2023,
        REVIEW_2023,
        REVIEW_2023 | {"user_id": "AOTHER", "rating": 2.0, "timestamp": 1588687730000},
        REVIEW_2023 | {"timestamp": "noon"},
        REVIEW_2023 | {"rating": 0.0},
        '{"rating": 5.0, "user_id": "ACUT',
        {name: value for name, value in REVIEW_2023.items() if name != "user_id"},
        REVIEW_2023 | {"parent_asin": "B0UNKNOWN1"},
    )
    with gzip.open(tmp_path / "All_Beauty.jsonl.gz", "wt") as file:
        file.write(reviews)
    with gzip.open(tmp_path / "meta_All_Beauty.jsonl.gz", "wt") as file:
        file.write(_lines(META_2023, "not json", META_2023 | {"parent_asin": None}))
    return str(tmp_path)


def test_reads_the_release_of_2023_and_rejects_bad_lines_with_a_reason(
    spark: SparkSession, folder_2023: str
) -> None:
    manifest, rows = read_events(spark, amazon, folder_2023)
    assert (manifest.start_date, manifest.end_date) == (date(2020, 5, 5), date(2020, 5, 5))
    assert (manifest.actions, manifest.partition_unit, manifest.timezone) == (
        ("like",),
        "month",
        "UTC",
    )
    assert len(rows) == 8
    disliked = rows[-1]
    assert (disliked["user_id"], disliked["item_id"]) == ("AOTHER", "B0PARENT01")
    assert (disliked["kind"], disliked["actions"]) == ("impression", [])
    assert (disliked["surface"], disliked["raw_text"]) == ("reviews", None)
    liked = [row for row in rows if row["actions"] == ["like"] and row["raw_text"] is None]
    assert liked[0]["event_time"] == datetime(2020, 5, 5, 14, 8, 48, 923_000)
    texts = " ".join(row["raw_text"] for row in rows if row["kind"] is None)
    assert all(word in texts for word in ('"noon"', '"rating": 0.0', "ACUT"))
    assert cleaning_counts(spark, amazon, folder_2023, manifest) == {
        "kept": 2,
        "exact_duplicate": 1,
        "unparsable": 3,
        "missing_user": 1,
        "unknown_item": 1,
    }


def test_reads_products_of_2023(spark: SparkSession, folder_2023: str) -> None:
    manifest = amazon.describe(spark, folder_2023, {})
    (product,) = amazon.items(spark, folder_2023, manifest, {}).collect()
    assert product.asDict() == {
        "item_id": "B0PARENT01",
        "created_time": None,
        "author_id": "Howard Products",
        "tags": ["Beauty", "Skin  Care"],
        "text": "Howard Feed-N-Wax",
        "duration_ms": None,
        "features": {"department": "All Beauty"},
    }
    people = amazon.users(spark, folder_2023, manifest, {}).sort("user_id").collect()
    assert [row["user_id"] for row in people] == ["AGKHLEW2SOWHNMFQIJGBECAF7INQ", "AOTHER"]
    assert (people[0]["text"], people[0]["features"]) == (None, {})


def test_reads_the_five_core_of_2018_beside_its_categorys_metadata(
    spark: SparkSession, tmp_path: Path
) -> None:
    reviews = _lines(REVIEW_2018, REVIEW_2018 | {"asin": "B1", "overall": 4.0})
    (tmp_path / "All_Beauty_5.json").write_text(reviews)
    program = META_2018 | {"asin": "B1", "title": "var t = new Date().getTime();", "brand": ""}
    (tmp_path / "meta_All_Beauty.json").write_text(_lines(META_2018, program))
    manifest, rows = read_events(spark, amazon, str(tmp_path))
    assert [(row["item_id"], row["actions"]) for row in rows] == [
        ("B000FI4S1E", []),
        ("B1", ["like"]),
    ]
    assert rows[0]["event_time"] == datetime(2014, 2, 28)
    soap, page = amazon.items(spark, str(tmp_path), manifest, {}).sort("item_id").collect()
    assert (soap["text"], soap["author_id"], soap["tags"]) == ("Soap &amp; Water", "Pre", [])
    assert soap["features"] == {}
    assert (page["text"], page["author_id"]) == (None, None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"reviews.csv": "x"}, r"no reviews \(\*\.jsonl or \*\.json, plain or \.gz\) in "),
        ({"A.jsonl": ""}, r"A\.jsonl has no rows; fetch it again"),
        ({"A.jsonl": "user,item\n"}, r"A\.jsonl holds no JSON objects, one per line"),
        (
            {"A.jsonl": _lines({"user_id": "u", "asin": "i", "rating": 5, "timestamp": 1})},
            r"A\.jsonl lacks the column 'parent_asin' of the release of 2023; its columns are: ",
        ),
        (
            {"A.jsonl": _lines(REVIEW_2023), "B.json": _lines(REVIEW_2018)},
            r"reviews of two releases: A\.jsonl \(2023\), B\.json \(2018\); keep each",
        ),
        (
            {"A.jsonl": _lines(REVIEW_2023 | {"timestamp": "noon"})},
            r"no time of .*A\.jsonl can be read as milliseconds, for example 'noon'",
        ),
    ],
)
def test_names_what_is_wrong_with_the_files(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        amazon.describe(spark, str(tmp_path), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"no meta_Toys\.jsonl or \.json \(plain or \.gz\) beside .*Toys_5\.json; fetch"),
        ({"meta_Toys.json": _lines({"asin": "B1"})}, r"meta_Toys\.json lacks the column 'title'"),
    ],
)
def test_names_what_is_wrong_with_the_metadata(
    spark: SparkSession, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    (tmp_path / "Toys_5.json").write_text(_lines(REVIEW_2018))
    for name, text in metadata.items():
        (tmp_path / name).write_text(text)
    manifest = amazon.describe(spark, str(tmp_path), {})
    with pytest.raises(SourceError, match=message):
        amazon.items(spark, str(tmp_path), manifest, {})
