"""Item text: the source's words, or features as words, and never the item's id."""

from datetime import UTC, datetime

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.feature_text import duration_text, number_text
from pipelines.item_text import build_item_text
from pipelines.tables import ITEM_TEXT, ITEMS
from pipelines.version_tables import ITEM_VERSIONS
from tests.pipelines.sequence_rows import MANIFEST, frame
from tests.pipelines.version_rows import since_ever

_TRAIN = datetime(2024, 1, 1, tzinfo=UTC)
_LATER = datetime(2024, 1, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def texts(spark: SparkSession) -> dict[str, Row]:
    """Build the text of all items of this module at once."""
    features = {
        "width_px": "720.0",
        "upload_type": "Long_Import",
        "upload_dt": "2022-04-10",
        "music_id": "4712",
        "video_id": "4711",
        "slug": "",
        "likes": None,
    }
    catalogue = [
        {"item_id": "own", "text": "  A <ST_yes> good\tread \n", "tags": ["x"], "author_id": "9"},
        {
            "item_id": "4711",
            "text": "  <> ",
            "tags": ["39", "pop_music", ""],
            "author_id": "123",
            "duration_ms": 45_000,
            "features": features,
        },
        {"item_id": "B00X", "features": {"asin": "B00X", "brand": "Acme", "item_id": "B00X"}},
        {"item_id": "731", "features": {"movie_id": "731"}},
        {"item_id": "created", "created_time": _TRAIN, "first_seen_time": _LATER},
        {"item_id": "seen", "first_seen_time": _TRAIN},
        {"item_id": "boundary", "first_seen_time": MANIFEST.validation_start},
        {"item_id": "late", "created_time": _LATER, "first_seen_time": _LATER},
        {"item_id": "backdated", "created_time": _TRAIN, "text": "first described later"},
    ]
    rows = [{"item_index": place + 1, **item} for place, item in enumerate(catalogue)]
    items = frame(spark, ITEMS, rows)
    described = F.when(F.col("item_id") == "backdated", F.lit(MANIFEST.validation_start))
    versions = since_ever(items, ITEM_VERSIONS).withColumn("valid_from", described)
    result = build_item_text(versions, items=items, manifest=MANIFEST)
    assert result.schema.simpleString() == ITEM_TEXT.schema.simpleString()
    return {row.item_id: row for row in result.collect()}


def test_own_text_is_cleaned_and_used_alone(texts: dict[str, Row]) -> None:
    assert texts["own"].asDict() == {
        "item_id": "own",
        "item_index": 1,
        "text": "A ST_yes good read",
        "origin": "text",
        "is_fitted": False,
    }


def test_features_become_words_where_there_is_no_text(texts: dict[str, Row]) -> None:
    assert texts["4711"].origin == "features"
    assert texts["4711"].text == (
        "tag 39 pop music author 123 duration 30 to 60 seconds music 4712 upload dt 2022-04 "
        "upload type Long Import width px 500 to 1000"
    )


def test_the_item_id_is_never_part_of_the_text(texts: dict[str, Row]) -> None:
    assert texts["B00X"].text == "brand Acme"
    assert texts["731"].text == "no description"


def test_fitted_items_are_those_known_before_validation(texts: dict[str, Row]) -> None:
    assert {name for name, row in texts.items() if row.is_fitted} == {"created", "seen"}


def test_numbers_become_bucketed_words(spark: SparkSession) -> None:
    expected = {
        -0.5: "below 0",
        0.0: "0",
        0.25: "below 1",
        7.0: "7",
        7.5: "5 to 10",
        10.0: "10 to 20",
        20.0: "20 to 50",
        99.0: "50 to 100",
        1000.0: "1000 to 2000",
        None: None,
    }
    numbers = spark.createDataFrame([(number,) for number in expected], "number double")
    rows = numbers.select("number", number_text(F.col("number"))).collect()
    assert {row[0]: row[1] for row in rows} == expected


def test_durations_become_bucketed_words(spark: SparkSession) -> None:
    durations = spark.createDataFrame(
        [(0,), (4_999,), (5_000,), (60_000,), (3_600_000,), (None,)], "duration_ms long"
    )
    words = [row[0] for row in durations.select(duration_text(F.col("duration_ms"))).collect()]
    assert words == [
        None,
        "duration below 5 seconds",
        "duration 5 to 10 seconds",
        "duration 60 to 120 seconds",
        "duration above 3600 seconds",
        None,
    ]


def test_empty_catalogue_gives_an_empty_table(spark: SparkSession) -> None:
    items = frame(spark, ITEMS, [])
    found = build_item_text(since_ever(items, ITEM_VERSIONS), items=items, manifest=MANIFEST)
    assert found.collect() == []
