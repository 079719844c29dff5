"""MIND: requests and their labelled news, bad lines, undated history, folders and zips."""

import zipfile
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.sources import mind
from pipelines.sources.errors import SourceError
from tests.pipelines.sources.cleaned import cleaning_counts, read_events

FIRST = "1\tU13\t11/11/2019 10:00:05 PM\tN7 N8\tN1-1 N2-0\n"
LATER = "1\tU13\t11/15/2019 8:55:22 AM\tN7 N8 N1\tN2-0\n"  # the next set counts anew
NEWS = (
    'N1\tsports\tgolf\tA "quoted" Café\tShort.\thttps://x\t[]\t[{"Label": "PGA"}]\n'
    "N2\tnews\t\tOnly a title\t\thttps://y\t[]\t[]\n"
)
BAD = (
    FIRST  # a copy
    + "2\tU14\tyesterday\t\tN1-0\n"
    + "3\tU14\t11/12/2019 1:00:00 AM\t\tN1-0 N2 N2-7\n"
    + "4\tU14\t11/12/2019 1:00:00 AM\tN7\n"
    + "5\tU14\t11/12/2019 1:00:00 AM\tN7\t\n"
    + "6\t\t11/12/2019 1:00:00 AM\t\tN1-0\n"
    + "7\tU14\t11/12/2019 12:30:00 PM\t\tN9-1\n"
)


def _write(folder: Path, behaviours: str, news: str = NEWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviors.tsv").write_text(behaviours, encoding="utf-8")
    (folder / "news.tsv").write_text(news, encoding="utf-8")
    return folder


def test_reads_the_sets_of_a_folder(spark: SparkSession, tmp_path: Path) -> None:
    _write(tmp_path / "MINDsmall_train", FIRST)
    _write(tmp_path / "MINDsmall_dev", LATER, NEWS.replace("Café", "Cafe"))
    manifest, rows = read_events(spark, mind, str(tmp_path))
    clicked, passed, later = rows
    assert (manifest.start_date, manifest.end_date) == (date(2019, 11, 11), date(2019, 11, 15))
    assert (clicked["item_id"], clicked["actions"], clicked["kind"]) == (
        "N1",
        ["click"],
        "impression",
    )
    assert (passed["item_id"], passed["actions"]) == ("N2", [])
    assert clicked["request_id"] == passed["request_id"] != later["request_id"]
    assert clicked["event_id"] != passed["event_id"]
    assert clicked["event_time"] == datetime(2019, 11, 11, 22, 0, 5)
    assert later["event_time"] == datetime(2019, 11, 15, 8, 55, 22)
    assert clicked["position"] is clicked["propensity"] is clicked["raw_text"] is None
    past = mind.history(spark, str(tmp_path), manifest, {}).collect()
    assert [row.asDict() for row in past] == [
        {"user_id": "U13", "item_ids": ["N7", "N8"], "action_bits": [1, 1], "dwell_bucket": [0, 0]}
    ]


def test_rejects_what_it_cannot_read_with_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    path = str(_write(tmp_path / "set", FIRST + BAD))
    manifest, rows = read_events(spark, mind, path)
    assert len(rows) == 4 + 1 + 3 + 1 + 1 + 1 + 1
    broken = [row["raw_text"] for row in rows if row["kind"] is None]
    assert sorted(text for text in broken if "\t" in text) == [
        "3\tU14\t11/12/2019 1:00:00 AM\tN2",
        "3\tU14\t11/12/2019 1:00:00 AM\tN2-7",
        "4\tU14\t11/12/2019 1:00:00 AM\tN7",
    ]
    assert sum("yesterday" in text for text in broken) == 1
    assert sum('"impression":"5"' in text for text in broken) == 1
    assert cleaning_counts(spark, mind, path, manifest) == {
        "kept": 3,
        "exact_duplicate": 2,
        "unparsable": 5,
        "missing_user": 1,
        "unknown_item": 1,
    }


def test_reads_articles_and_users(spark: SparkSession, tmp_path: Path) -> None:
    path = str(_write(tmp_path / "set", FIRST + BAD))
    manifest = mind.describe(spark, path, {"timezone": "America/New_York"})
    assert manifest.timezone == "America/New_York"
    start, end = manifest.start_date, manifest.end_date
    frame = mind.events(spark, path, manifest, {}, start=start, end=end)
    first = frame.where("user_id = 'U13' AND item_id = 'N1'").first()
    assert first is not None
    # The clock that is written is that of the zone: 22:00:05 in New York.
    assert (first["event_time"], first["event_date"]) == (datetime(2019, 11, 12, 3, 0, 5), start)
    quoted, bare = mind.items(spark, path, manifest, {}).sort("item_id").collect()
    assert (quoted["text"], quoted["tags"]) == ('A "quoted" Café Short.', ["sports", "golf"])
    assert (bare["text"], bare["tags"], bare["created_time"]) == ("Only a title", ["news"], None)
    people = mind.users(spark, path, manifest, {}).sort("user_id").collect()
    assert [row["user_id"] for row in people] == ["U13", "U14"]


def test_reads_a_zip(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    archive = tmp_path / "MINDsmall_train.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("behaviors.tsv", FIRST)
        packed.writestr("news.tsv", NEWS)
        packed.writestr("entity_embedding.vec", "Q1\t0.1")
    assert mind.describe(spark, str(archive), {}).start_date == date(2019, 11, 11)
    (folder,) = (tmp_path / "scratch").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["behaviors.tsv", "news.tsv"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.tsv": "x"}, r"no behaviors\.tsv in .*; pass DATA="),
        ({"behaviors.tsv": FIRST}, r"no news\.tsv in .*; put MIND's file beside behaviors\.tsv"),
        ({"behaviors.tsv": "", "news.tsv": NEWS}, r"behaviors\.tsv has no rows; fetch it again"),
        (
            {"behaviors.tsv": "1,U1,11/11/2019 1:00:00 AM,,N1-0\n", "news.tsv": NEWS},
            r"behaviors\.tsv has 1 columns, not the 5 of MIND \(impression, user, time, ",
        ),
        (
            {"behaviors.tsv": FIRST.replace("-1", "").replace("-0", ""), "news.tsv": NEWS},
            r"behaviors\.tsv does not tell what was clicked: it is of the test set; move its ",
        ),
        (
            {"behaviors.tsv": "1\tU1\t2019-11-11 01:00\t\tN1-0\n", "news.tsv": NEWS},
            r"no time of .*behaviors\.tsv can be read as 11/15/2019 8:55:22 AM, for example '2019",
        ),
    ],
)
def test_names_what_is_wrong_with_the_files(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        mind.describe(spark, str(tmp_path), {})


def test_names_news_of_another_layout(spark: SparkSession, tmp_path: Path) -> None:
    path = str(_write(tmp_path, FIRST, "N1\tsports\n"))
    manifest = mind.describe(spark, path, {})
    with pytest.raises(SourceError, match=r"news\.tsv has 2 columns, not the 8 of MIND"):
        mind.items(spark, path, manifest, {})
