"""Published files whose columns appear, go or change type: recorded, refused, or rejected."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.sources import amazon, amazon_sequences, kuairand, mind, movielens, tencentgr
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import source_notes
from tests.pipelines.sources.cleaned import cleaning_counts

PLAIN, EXTRA, LACKING, TORN = "plain", "extra", "lacking", "torn"
EVENING = 1_650_812_400


def _table(file: Path, rows: list[dict], *, change: str, lost: str, separator: str = ",") -> None:
    """Write rows under their names, with a new column or without a known one."""
    for row in rows:
        if change == EXTRA:
            row["new"] = "x"
        if change == LACKING:
            del row[lost]
    lines = [separator.join(rows[0]), *(separator.join(map(str, r.values())) for r in rows)]
    file.write_text("\n".join(lines) + "\n")


def _kuairand(folder: Path, change: str) -> None:
    names = ("user_id", "video_id", "date", "hourmin", "time_ms", *kuairand.ACTION_COLUMNS.values())
    row = dict.fromkeys((*names, "play_time_ms", "duration_ms", "is_rand", "tab"), 0)
    row |= {"user_id": 7, "video_id": 52, "time_ms": EVENING * 1_000}
    row |= {"date": 20220424, "hourmin": 2300}  # an event at 23:00 in Shanghai
    second = row | {"video_id": 53, "date": "24 April" if change == TORN else 20220424}
    _table(folder / "log_standard_a.csv", [row, second], change=change, lost="is_rand")
    videos = [dict.fromkeys(kuairand._VIDEO_COLUMNS, "") | {"video_id": n} for n in (52, 53)]
    _table(folder / "video_features_basic_a.csv", videos, change=PLAIN, lost="")


def _movielens(folder: Path, change: str) -> None:
    row = {"userId": 1, "movieId": 2, "rating": 4.0, "timestamp": EVENING}
    second = row | {"movieId": 3, "rating": "good" if change == TORN else 3.5}
    _table(folder / "ratings.csv", [row, second], change=change, lost="rating")
    movies = [{"movieId": number, "title": f"T{number}", "genres": "Drama"} for number in (2, 3)]
    _table(folder / "movies.csv", movies, change=PLAIN, lost="")


def _amazon(folder: Path, change: str) -> None:
    row: dict[str, Any] = {
        "user_id": "A",
        "parent_asin": "B1",
        "rating": 5.0,
        "timestamp": EVENING * 1_000,
    }
    second = row | {"parent_asin": "B2", "rating": {"stars": 5} if change == TORN else 2}
    for each in (row, second):
        if change == EXTRA:
            each["new"] = "x"
        if change == LACKING:
            del each["rating"]
    _lines(folder / "Toys.jsonl", [row, second])
    products = [{"parent_asin": asin, "title": "t"} for asin in ("B1", "B2")]
    _lines(folder / "meta_Toys.jsonl", products)


def _amazon_sequences(folder: Path, change: str) -> None:
    gaps = "0 x" if change == TORN else "0 86400"
    (folder / "Toys_timedelta.txt").write_text(f"1 10\t0\n2 10 11\t{gaps}\n")
    (folder / "Toys_item2attributes.json").write_text('{"10": [1], "11": []}')
    texts = [{"item_id": 10, "asin": "B1", "idgenrec_keywords": "nail"}]
    file = folder / "Toys_id_asin_text.tsv"
    _table(file, texts, change=change, lost="idgenrec_keywords", separator="\t")


def _tencentgr(folder: Path, change: str) -> None:
    """Write one file of numbers and, of the next day, one of another layout."""
    first: dict[str, Any] = {"item_id": 7, "action_type": 1, "timestamp": EVENING}
    second = first | {"item_id": 8}
    if change == EXTRA:
        second["new"] = "x"
    if change == LACKING:
        del second["timestamp"]
    if change == TORN:
        second = {"item_id": "8", "action_type": "bought", "timestamp": str(EVENING)}
    for number, event in enumerate((first, second)):
        (folder / "seq").mkdir(exist_ok=True)
        rows = pa.Table.from_pylist([{"user_id": number + 1, "seq": [event]}])
        pq.write_table(rows, folder / "seq" / f"part-{number}.parquet")
    (folder / "item_feat").mkdir(exist_ok=True)
    ads = pa.Table.from_pylist([{"item_id": number, "100": 3} for number in (7, 8)])
    pq.write_table(ads, folder / "item_feat" / "part-0.parquet")


def _lines(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One source: how to write it, and what is said of its columns."""

    source: ModuleType
    write: Callable[[Path, str], None]
    known: tuple[str, str]
    appeared: dict[str, str]
    lacks: str
    torn: dict[str, int]


APPEARED = "source columns that appeared"
SEVERAL = "source columns of several types, read as text"
CHANGED = "source columns of another type than before"
_EVENT = "item_id: int64, action_type: int64, timestamp: int64"
_BOTH = f"list<element: struct<{_EVENT}, new: string>> or list<element: struct<{_EVENT}>>"
CASES = [
    Case(
        source=kuairand,
        write=_kuairand,
        known=("log.tab", "text"),
        appeared={APPEARED: "log.new (text)"},
        lacks=r"log_standard_a\.csv lacks the column 'is_rand'; its columns are: user_id, ",
        torn={"kept": 1, "unparsable": 1},
    ),
    Case(
        source=movielens,
        write=_movielens,
        known=("movies.title", "text"),
        appeared={APPEARED: "ratings.new (text)"},
        lacks=r"ratings\.csv lacks the column 'rating'; its columns are: userId, movieId, time",
        torn={"kept": 1, "unparsable": 1},
    ),
    Case(
        source=amazon,
        write=_amazon,
        known=("reviews.rating", "number"),
        appeared={APPEARED: "reviews.new (string)"},
        lacks=r"Toys\.jsonl lacks the column 'rating' of the release of 2023; its columns",
        torn={"kept": 1, "unparsable": 1},
    ),
    Case(
        source=amazon_sequences,
        write=_amazon_sequences,
        known=("texts.asin", "text"),
        appeared={APPEARED: "texts.new (text)"},
        lacks=r"text\.tsv lacks the column 'idgenrec_keywords'; its columns are: item_id, asin",
        torn={"kept": 1, "unparsable": 1},
    ),
    Case(
        source=tencentgr,
        write=_tencentgr,
        known=("item_feat.100", "int64"),
        appeared={
            CHANGED: f"seq.seq (list<element: struct<{_EVENT}>> -> {_BOTH})",
            SEVERAL: f"seq.seq ({_BOTH})",
        },
        lacks=r"part-1\.parquet lacks the column 'timestamp'; its columns are: item_id, action_",
        torn={"kept": 1, "unparsable": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.source.__name__.split(".")[-1])
def test_columns_that_differ_are_recorded_refused_by_name_or_rejected(
    spark: SparkSession, tmp_path: Path, case: Case
) -> None:
    source, path = case.source, str(tmp_path)
    case.write(tmp_path, PLAIN)
    manifest = source.describe(spark, path, {})
    name, kind = case.known
    assert manifest.columns[name] == kind
    assert source_notes(source.file_kinds(path), known=manifest.columns) == {}
    kept = cleaning_counts(spark, source, path, manifest)
    assert set(kept) == {"kept"}

    case.write(tmp_path, EXTRA)
    assert source_notes(source.file_kinds(path), known=manifest.columns) == case.appeared
    assert cleaning_counts(spark, source, path, manifest) == kept

    case.write(tmp_path, TORN)
    assert cleaning_counts(spark, source, path, manifest) == case.torn

    case.write(tmp_path, LACKING)
    with pytest.raises(SourceError, match=case.lacks):
        source.describe(spark, path, {})
        source.items(spark, path, manifest, {})


def test_files_without_names_must_have_the_published_width(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::5::978300760::home\n" * 2)
    (tmp_path / "movies.dat").write_text("2::T::Drama\n")
    with pytest.raises(SourceError, match=r"ratings\.dat has 5 columns, not the 4 of MovieLens"):
        movielens.describe(spark, str(tmp_path), {})
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/11/2019 1:00:00 AM\t\tN1-0\tnew\n")
    (tmp_path / "news.tsv").write_text("N1\tsports\n")
    with pytest.raises(SourceError, match=r"behaviors\.tsv has 6 columns, not the 5 of MIND"):
        mind.describe(spark, str(tmp_path), {})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"watch_seq": ["5"]}, r"user_sequences\.parquet lacks the column 'long_watch_seq'; its"),
        (
            {"watch_seq": ["5"], "long_watch_seq": ["[5]"], "like_seq": ["[]"]},
            r"the column 'watch_seq' of .* is string, not a list of videos; fetch it again",
        ),
    ],
)
def test_kuairands_earlier_watches_are_refused_by_name(
    spark: SparkSession, tmp_path: Path, columns: dict, message: str
) -> None:
    _kuairand(tmp_path, PLAIN)
    (tmp_path / "log_standard_a.csv").rename(tmp_path / "derived_log_standard_a.csv")
    manifest = kuairand.describe(spark, str(tmp_path), {})
    watches = pa.table({"user_id": [7], "last_time_ms": ["1650800000000"], **columns})
    pq.write_table(watches, tmp_path / "user_sequences.parquet")
    with pytest.raises(SourceError, match=message):
        kuairand.history(spark, str(tmp_path), manifest, {})
