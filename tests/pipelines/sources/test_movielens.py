"""MovieLens: the three published layouts, zips, bad lines, and the real small set."""

import zipfile
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.sources import movielens
from pipelines.sources.errors import SourceError
from pipelines.tables import RAW_EVENTS
from tests.pipelines.sources.cleaned import cleaning_counts

RATINGS = "userId,movieId,rating,timestamp\n1,31,4.0,964982703\n2,31,3.5,964982704\n"
MOVIES = (
    "movieId,title,genres\n"
    '31,"Wizard, The (1989)",Adventure|Children\n'
    '32,"The ""Quoted"" One",(no genres listed)\n'
)
RATINGS_100K = "1\t31\t4\t874965758\n2\t32\t1\t874965759\n"
FLAGS = ["0"] * 19
FLAGS[1] = FLAGS[3] = "1"
MOVIES_100K = f"31|Café (1989)|01-Jan-1989||http://x|{'|'.join(FLAGS)}\n"
RATINGS_1M = "1::31::5::978300760\n2::31::3::978302109\n"
MOVIES_1M = '31::Sgt. Bilko: "The" Café (1996)::Comedy|War\n'


def _write(folder: Path, files: dict[str, str], *, encoding: str = "utf-8") -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding=encoding)
    return str(folder)


def _events(spark: SparkSession, path: str) -> list[Row]:
    manifest = movielens.describe(spark, path, {})
    frame = movielens.events(
        spark, path, manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    assert frame.schema.simpleString() == RAW_EVENTS.schema.simpleString()
    return frame.sort("event_time").collect()


def _items(spark: SparkSession, path: str) -> list[Row]:
    manifest = movielens.describe(spark, path, {})
    return movielens.items(spark, path, manifest, {}).sort("item_id").collect()


def test_reads_comma_separated_sets(spark: SparkSession, tmp_path: Path) -> None:
    path = _write(tmp_path / "ml", {"ratings.csv": RATINGS, "movies.csv": MOVIES})
    liked, disliked = _events(spark, path)
    assert (liked["actions"], disliked["actions"]) == (["like"], [])
    assert (liked["kind"], disliked["kind"]) == ("impression", "impression")
    assert liked["event_time"] == datetime(2000, 7, 30, 18, 45, 3)
    assert (liked["event_date"], liked["surface"]) == (date(2000, 7, 30), "ratings")
    wizard, quoted = _items(spark, path)
    assert (wizard["text"], wizard["tags"]) == ("Wizard, The (1989)", ["Adventure", "Children"])
    assert wizard["features"] == {"year": "1989"}
    assert (quoted["text"], quoted["tags"], quoted["features"]) == ('The "Quoted" One', [], {})


def test_reads_ml_100k(spark: SparkSession, tmp_path: Path) -> None:
    files = {"u.data": RATINGS_100K, "u.item": MOVIES_100K, "u.user": "1|24|M|writer|85711\n"}
    path = _write(tmp_path / "ml-100k", files, encoding="latin-1")
    assert [row["actions"] for row in _events(spark, path)] == [["like"], []]
    (movie,) = _items(spark, path)
    assert (movie["text"], movie["tags"]) == ("Café (1989)", ["Action", "Animation"])
    manifest = movielens.describe(spark, path, {})
    (user,) = movielens.users(spark, path, manifest, {}).collect()
    assert user["features"] == {"age": "24", "gender": "M", "occupation": "writer"}


def test_reads_ml_1m(spark: SparkSession, tmp_path: Path) -> None:
    files = {
        "ratings.dat": RATINGS_1M,
        "movies.dat": MOVIES_1M,
        "users.dat": "1::F::1::10::48067\n",
    }
    path = _write(tmp_path / "ml-1m", files, encoding="latin-1")
    assert [row["item_id"] for row in _events(spark, path)] == ["31", "31"]
    (movie,) = _items(spark, path)
    assert (movie["text"], movie["tags"]) == ('Sgt. Bilko: "The" Café (1996)', ["Comedy", "War"])
    manifest = movielens.describe(spark, path, {})
    (user,) = movielens.users(spark, path, manifest, {}).collect()
    assert user["features"] == {"age": "1", "gender": "F", "occupation": "10"}


def test_describes_monthly_partitions(spark: SparkSession, tmp_path: Path) -> None:
    path = _write(tmp_path / "ml", {"ratings.csv": RATINGS, "movies.csv": MOVIES})
    manifest = movielens.describe(spark, path, {})
    assert (manifest.partition_unit, manifest.actions) == ("month", ("like",))
    assert (manifest.has_impressions, manifest.timezone) == (True, "UTC")


def test_reads_a_zip_and_a_folder_that_holds_one(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    archive = tmp_path / "ml-tiny.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-tiny/ratings.csv", RATINGS)
        packed.writestr("ml-tiny/movies.csv", MOVIES)
        packed.writestr("ml-tiny/../../escaped.txt", "no")
    assert len(_events(spark, str(archive))) == 2
    assert len(_events(spark, str(tmp_path))) == 2
    (unpacked,) = (tmp_path / "scratch").iterdir()
    assert sorted(file.name for file in unpacked.iterdir()) == ["movies.csv", "ratings.csv"]


def test_keeps_the_text_of_lines_it_cannot_read(spark: SparkSession, tmp_path: Path) -> None:
    bad = "3,31,4.0,noon\n4,31,eleven,964982703\n5,31,11,964982703\n6,31\n7,31,4.0,964982703,x\n"
    path = _write(tmp_path / "ml", {"ratings.csv": RATINGS + bad, "movies.csv": MOVIES})
    rows = _events(spark, path)
    broken = [row["raw_text"] for row in rows if row["kind"] is None]
    assert len(rows) == 7
    assert len(broken) == 5
    assert all(any(word in text for text in broken) for word in ("noon", "eleven", "6,31"))
    assert [row["raw_text"] for row in rows if row["kind"]] == [None, None]


@pytest.mark.parametrize(
    ("separator", "names"),
    [("\t", ("u.data", "u.item", "u.user")), ("::", ("ratings.dat", "movies.dat", "users.dat"))],
)
def test_old_layouts_reject_bad_lines_with_a_reason(
    spark: SparkSession, tmp_path: Path, separator: str, names: tuple[str, str, str]
) -> None:
    ratings = [
        ("1", "31", "4", "874965758"),
        ("1", "31", "4", "874965758"),  # a copy
        ("1", "31", "2", "874965758"),  # the same rating with other stars
        ("2", "31", "6", "874965759"),
        ("2", "31", "4", "noon"),
        ("2", "31", "4"),
        ("", "31", "4", "874965759"),
        ("2", "99", "4", "874965759"),
    ]
    movies = MOVIES_100K if separator == "\t" else MOVIES_1M
    texts = "".join(separator.join(row) + "\n" for row in ratings), movies, ""
    path = _write(tmp_path, dict(zip(names, texts, strict=True)), encoding="latin-1")
    manifest = movielens.describe(spark, path, {})
    assert cleaning_counts(spark, movielens, path, manifest) == {
        "kept": 1,
        "exact_duplicate": 1,
        "key_duplicate": 1,
        "unparsable": 3,
        "missing_user": 1,
        "unknown_item": 1,
    }


def test_reads_ml_10m_in_its_own_encoding(spark: SparkSession, tmp_path: Path) -> None:
    files = {"ratings.dat": RATINGS_1M, "movies.dat": MOVIES_1M}
    path = _write(tmp_path / "ml-10M100K", files, encoding="utf-8")
    (movie,) = _items(spark, path)
    assert movie["text"] == 'Sgt. Bilko: "The" Café (1996)'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.csv": "x"}, r"no MovieLens set in .*need ratings\.csv and movies\.csv"),
        ({"ratings.csv": "", "movies.csv": MOVIES}, r"ratings\.csv is empty"),
        ({"ratings.csv": RATINGS[:32], "movies.csv": MOVIES}, r"ratings\.csv has no rows"),
        ({"ratings.csv": "user,movie\n1,2\n", "movies.csv": MOVIES}, "lacks the column 'userId'"),
    ],
)
def test_names_what_is_wrong_with_the_files(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    path = _write(tmp_path / "ml", files)
    with pytest.raises(SourceError, match=message):
        movielens.describe(spark, path, {})


def test_names_a_broken_zip(spark: SparkSession, tmp_path: Path) -> None:
    broken = tmp_path / "ml-small.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(SourceError, match=r"cannot unpack .*ml-small\.zip: .*fetch the zip again"):
        movielens.describe(spark, str(broken), {})


def test_real_small_set_is_read_whole(spark: SparkSession, real_data: Path) -> None:
    path = str(real_data / "movielens-latest-small")
    manifest = movielens.describe(spark, path, {})
    assert (manifest.start_date, manifest.end_date) == (date(1996, 3, 29), date(2018, 9, 24))
    frame = movielens.events(
        spark, path, manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    counted = frame.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count("raw_text").alias("broken"),
        F.count_distinct("event_id").alias("ids"),
        F.count_distinct("user_id").alias("users"),
        F.sum(F.size("actions")).alias("likes"),
    ).first()
    assert counted is not None
    assert counted.asDict() == {
        "rows": 100_836,
        "broken": 0,
        "ids": 100_836,
        "users": 610,
        "likes": 48_580,
    }
    assert movielens.items(spark, path, manifest, {}).count() == 9_742
    assert cleaning_counts(spark, movielens, path, manifest) == {"kept": 100_836}
