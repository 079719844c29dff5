"""Amazon's 2014 sequences: the made-up clock, leave-one-out, bad lines, and the real Beauty set."""

from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.sources import amazon_sequences
from pipelines.sources.errors import SourceError
from pipelines.splits import split_of
from tests.pipelines.sources.cleaned import cleaning_counts, read_events

LINE = "1 10 11 12 13\t0 86400 0 172800\n"
SHORT = "2 11 10\t0 0\n"
BAD = "3 10 11\t0\n4 10 11\t0 x\n5 10 11 12\n6 10 11\t0 -86400\n"
ATTRIBUTES = '{"10": [1, 2], "11": [], "12": [3], "13": [3]}'
TEXTS = "item_id\tasin\tidgenrec_keywords\n10\tB004756YJA\tnail lacquer\n11\tB1\t\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small category, without bad lines."""
    (tmp_path / "Toys_timedelta.txt").write_text(LINE + SHORT)
    (tmp_path / "Toys_item2attributes.json").write_text(ATTRIBUTES)
    (tmp_path / "derived_Toys_id_asin_text.tsv").write_text(TEXTS)
    return tmp_path


def test_the_clock_keeps_order_and_gaps_and_leaves_one_out(
    spark: SparkSession, folder: Path
) -> None:
    manifest, rows = read_events(spark, amazon_sequences, str(folder))
    times = {(row["user_id"], row["item_id"]): row["event_time"] for row in rows}
    assert times == {
        ("1", "10"): datetime(1999, 12, 30, 0, 0, 0),
        ("1", "11"): datetime(1999, 12, 31, 0, 0, 1),
        ("1", "12"): datetime(2000, 1, 1, 0, 0, 2),
        ("1", "13"): datetime(2000, 1, 2, 0, 0, 3),
        ("2", "11"): datetime(1999, 12, 31, 0, 0, 0),
        ("2", "10"): datetime(1999, 12, 31, 0, 0, 1),
    }
    assert {(row["kind"], *row["actions"], row["surface"]) for row in rows} == {
        ("action", "review", "reviews")
    }
    assert (manifest.start_date, manifest.end_date) == (date(1999, 12, 30), date(2000, 1, 2))
    assert (manifest.has_dates, manifest.has_impressions) == (False, False)
    assert set(manifest.cannot_feed) == {
        "ranker",
        "ranking_evaluation",
        "prompt_ranker",
        "expert_plan",
        "optimized_prompt_ranker",
    }
    assert type(manifest).from_json(manifest.to_json()) == manifest


def test_rejects_lines_it_cannot_read_with_a_reason(spark: SparkSession, folder: Path) -> None:
    (folder / "Toys_timedelta.txt").write_text(LINE + SHORT + LINE + BAD + "\n7 99 10 11\t0 0 0\n")
    path = str(folder)
    manifest, rows = read_events(spark, amazon_sequences, path)
    texts = sorted(row["raw_text"] for row in rows if row["raw_text"] is not None)
    assert texts == BAD.splitlines()
    assert cleaning_counts(spark, amazon_sequences, path, manifest) == {
        "kept": 4 + 2 + 2,
        "exact_duplicate": 4,
        "unparsable": 4,
        "unknown_item": 1,
    }


def test_reads_items_and_users(spark: SparkSession, folder: Path) -> None:
    path = str(folder)
    manifest = amazon_sequences.describe(spark, path, {})
    found = amazon_sequences.items(spark, path, manifest, {}).sort("item_id").collect()
    assert [(row["item_id"], row["text"], row["tags"]) for row in found] == [
        ("10", "nail lacquer", ["attribute 1", "attribute 2"]),
        ("11", None, []),
        ("12", None, ["attribute 3"]),
        ("13", None, ["attribute 3"]),
    ]
    (folder / "derived_Toys_id_asin_text.tsv").unlink()
    first = amazon_sequences.items(spark, path, manifest, {}).sort("item_id").first()
    assert first is not None
    assert (first["text"], first["created_time"], first["features"]) == (None, None, {})
    people = amazon_sequences.users(spark, path, manifest, {}).collect()
    assert sorted(row["user_id"] for row in people) == ["1", "2"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Toys.txt": LINE}, r"no \*_timedelta\.txt in .*; pass DATA=<folder with "),
        (
            {"A_timedelta.txt": LINE, "B_timedelta.txt": LINE},
            r"holds several categories: A_timedelta\.txt, B_timedelta\.txt; pass DATA=<one",
        ),
        ({"A_timedelta.txt": LINE}, r"no A_item2attributes\.json beside .*; fetch the items"),
        ({"A_timedelta.txt": "", "A_item2attributes.json": "{}"}, r"A_timedelta\.txt has no rows"),
        (
            {"A_timedelta.txt": "1 10 11 12\n", "A_item2attributes.json": ATTRIBUTES},
            r"no line of .*A_timedelta\.txt reads as `user item \.\.\. <TAB> gap \.\.\.`",
        ),
    ],
)
def test_names_what_is_wrong_with_the_files(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        amazon_sequences.describe(spark, str(tmp_path), {})


def test_names_what_is_wrong_with_the_items(spark: SparkSession, folder: Path) -> None:
    path = str(folder)
    manifest = amazon_sequences.describe(spark, path, {})
    (folder / "derived_Toys_id_asin_text.tsv").write_text("item\ttext\n1\tx\n")
    with pytest.raises(SourceError, match=r"_text\.tsv lacks the column 'item_id'; its columns"):
        amazon_sequences.items(spark, path, manifest, {})
    (folder / "Toys_item2attributes.json").write_text("[1, 2]")
    with pytest.raises(SourceError, match=r"attributes\.json is no JSON object of item to attr"):
        amazon_sequences.items(spark, path, manifest, {})


def test_real_beauty_is_read_and_cleaned_whole(spark: SparkSession, real_data: Path) -> None:
    path = str(real_data / "amazon-beauty")
    manifest = amazon_sequences.describe(spark, path, {})
    frame = amazon_sequences.events(
        spark, path, manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    split = split_of(F.col("event_time"), manifest=manifest)
    counted = {
        row["split"]: (row["num_rows"], row["num_users"])
        for row in frame.groupBy(split.alias("split"))
        .agg(F.count(F.lit(1)).alias("num_rows"), F.count_distinct("user_id").alias("num_users"))
        .collect()
    }
    # 198,502 reviews of 22,363 users: one each is the test, one the validation.
    assert counted == {
        "train": (198_502 - 2 * 22_363, 22_363),
        "validation": (22_363, 22_363),
        "test": (22_363, 22_363),
    }
    items = amazon_sequences.items(spark, path, manifest, {})
    texts = items.agg(F.count(F.lit(1)).alias("items"), F.count("text").alias("texts")).first()
    assert texts is not None
    assert (texts["items"], texts["texts"]) == (12_101, 12_100)  # the text of one is blank
    assert cleaning_counts(spark, amazon_sequences, path, manifest) == {"kept": 198_502}
