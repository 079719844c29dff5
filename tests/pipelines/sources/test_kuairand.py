"""KuaiRand: published file names, meanings of the columns, bad rows, and the real log."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.sources import kuairand
from pipelines.sources.errors import SourceError
from pipelines.sources.files import read_csv
from pipelines.tables import RAW_EVENTS
from tests.pipelines.sources.cleaned import cleaning_counts

LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab\n"
)
# 1650812741436 is 2022-04-24 23:05:41.436 in Shanghai; the log received it after midnight.
LATE = "7,52,20220425,0,1650812741436,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1\n"
EARLY = "8,53,20220409,900,1649466000000,1,1,1,1,1,1,1,10,20,0,0,1,0,4\n"
RANDOM = "7,53,20220424,2300,1650812742000,0,0,0,0,0,0,0,0,20,0,0,0,1,1\n"
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag\n"
    '52,734,NORMAL,2022-04-10,Kmovie,0.0,87433.0,720.0,1280.0,915,9.0,"39,68"\n'
    "53,735,UNKNOWN,,ShortImport,0.0,,720.0,1280.0,0,,\n"
)
USERS = (
    "user_id,user_active_degree,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num_range,friend_user_num_range,register_days_range,"
    "onehot_feat0\n"
    '7,full_active,-124,1,514,500+,"[100,1k)","[30,60)",730+,1\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small KuaiRand-Pure as published, one file compressed."""
    data = tmp_path / "KuaiRand-Pure" / "data"
    data.mkdir(parents=True)
    (data / "log_standard_4_08_to_4_21_pure.csv").write_text(LOG_HEADER + EARLY)
    with gzip.open(data / "log_standard_4_22_to_5_08_pure.csv.gz", "wt") as log:
        log.write(LOG_HEADER + LATE)
    (data / "log_random_4_22_to_5_08_pure.csv").write_text(LOG_HEADER + RANDOM)
    (data / "video_features_basic_pure.csv").write_text(VIDEOS)
    (data / "user_features_pure.csv").write_text(USERS)
    # Sums over the whole period: an official file that must not be read.
    (data / "video_features_statistic_pure.csv").write_text("video_id,counts,show_cnt\n52,1,9\n")
    return tmp_path


def _events(spark: SparkSession, path: Path) -> list[Row]:
    manifest = kuairand.describe(spark, str(path), {})
    frame = kuairand.events(
        spark, str(path), manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    assert frame.schema.simpleString() == RAW_EVENTS.schema.simpleString()
    return frame.sort("event_time", "user_id").collect()


def test_reads_the_published_files_and_their_meanings(spark: SparkSession, folder: Path) -> None:
    early, late, random = _events(spark, folder)
    assert early["actions"] == list(kuairand.ACTION_COLUMNS)
    assert (early["surface"], early["dwell_ms"], early["duration_ms"]) == ("4", 10, 20)
    assert late["actions"] == ["click", "long_view"]
    assert (late["kind"], late["user_id"], late["item_id"]) == ("impression", "7", "52")
    assert late["event_time"] == datetime(2022, 4, 24, 15, 5, 41, 436_000)
    assert late["event_date"] == date(2022, 4, 24)
    assert late["arrival_time"] == datetime(2022, 4, 24, 17)  # the end of the hour 0 of 25 April
    assert (late["is_shuffled"], random["is_shuffled"]) == (False, True)
    assert late["request_id"] is late["position"] is late["raw_text"] is None


def test_describes_the_range_in_chinas_time(spark: SparkSession, folder: Path) -> None:
    manifest = kuairand.describe(spark, str(folder), {})
    assert (manifest.start_date, manifest.end_date) == (date(2022, 4, 9), date(2022, 4, 24))
    assert manifest.surfaces == ("1", "4")
    assert manifest.timezone == "Asia/Shanghai"
    assert manifest.cannot_feed == {}
    assert kuairand.describe(spark, str(folder), {"timezone": "UTC"}).timezone == "UTC"


def test_keeps_only_the_days_asked_for(spark: SparkSession, folder: Path) -> None:
    manifest = kuairand.describe(spark, str(folder), {})
    day = date(2022, 4, 24)
    frame = kuairand.events(spark, str(folder), manifest, {}, start=day, end=day)
    assert {row["event_date"] for row in frame.collect()} == {day}


def test_reads_videos_and_users_as_features(spark: SparkSession, folder: Path) -> None:
    manifest = kuairand.describe(spark, str(folder), {})
    first, second = kuairand.items(spark, str(folder), manifest, {}).sort("item_id").collect()
    assert first["created_time"] == datetime(2022, 4, 9, 16)  # midnight in Shanghai
    assert (first["author_id"], first["tags"]) == ("734", ["39", "68"])
    assert (first["duration_ms"], first["text"]) == (87_433, None)
    assert first["features"]["music_type"] == "9"
    assert second["tags"] == []
    assert second["created_time"] is second["duration_ms"] is None
    assert set(second["features"]) == {"upload_type", "server_width", "server_height", "music_id"}
    (user,) = kuairand.users(spark, str(folder), manifest, {}).collect()
    assert user["features"]["fans_user_num_range"] == "[100,1k)"
    assert {"is_live_streamer", "onehot_feat0", "follow_user_num"}.isdisjoint(user["features"])


@pytest.mark.parametrize(("suffix", "parts"), [("1k", ("", "")), ("27k", ("_part1", "_part2"))])
def test_reads_the_names_of_the_larger_sets(
    spark: SparkSession, tmp_path: Path, suffix: str, parts: tuple[str, str]
) -> None:
    first, second = parts
    files = {
        f"log_standard_4_08_to_4_21_{suffix}{first}.csv": LOG_HEADER + EARLY,
        f"log_standard_4_22_to_5_08_{suffix}{second}.csv": LOG_HEADER + LATE,
        f"log_random_4_22_to_5_08_{suffix}.csv": LOG_HEADER + RANDOM,
        f"video_features_basic_{suffix}.csv": VIDEOS,
        f"video_features_statistic_{suffix}{first}.csv": "video_id,counts\n99,1\n",
        f"user_features_{suffix}.csv": USERS,
        "derived_log_standard_x.csv": LOG_HEADER + LATE,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert [row["is_shuffled"] for row in _events(spark, tmp_path)] == [False, False, True]
    manifest = kuairand.describe(spark, str(tmp_path), {})
    assert kuairand.items(spark, str(tmp_path), manifest, {}).count() == 2
    assert kuairand.users(spark, str(tmp_path), manifest, {}).count() == 1


def test_keeps_the_text_of_rows_it_cannot_read(spark: SparkSession, tmp_path: Path) -> None:
    rows = (
        LATE
        + LATE.replace("1650812741436", "yesterday")
        + LATE.replace(",1,0,0,0,0,0,1,", ",maybe,0,0,0,0,0,1,")
        + LATE.replace("61802", "long")
        + "7,52\n"
        + LATE.strip()
        + ",surplus\n"
        + LATE.replace("7,52", ",52")
    )
    (tmp_path / "log_standard_4_22_to_5_08_pure.csv").write_text(LOG_HEADER + rows)
    read = _events(spark, tmp_path)
    assert len(read) == 7
    broken = [row for row in read if row["raw_text"] is not None]
    assert len(broken) == 5
    assert {row["kind"] for row in broken} == {None}
    assert {row["event_date"] for row in broken} == {date(2022, 4, 24)}
    texts = " ".join(row["raw_text"] for row in broken)
    assert all(word in texts for word in ("yesterday", "maybe", '"long"', "7,52", "surplus"))
    (anonymous,) = [row for row in read if row["user_id"] is None and row["raw_text"] is None]
    assert anonymous["kind"] == "impression"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("readme.txt", "x", r"no log_standard_\*\.csv under .*; pass DATA="),
        ("log_standard_a.csv", "", r"log_standard_a\.csv is empty"),
        ("log_standard_a.csv", LOG_HEADER, r"log_standard_a\.csv has no rows; fetch"),
        ("log_standard_a.csv", "user_id,time\n1,2\n", r"lacks the column 'video_id'; its columns"),
        ("log_standard_a.csv.gz", "no gzip", r"cannot read .*\.gz: Not a gzipped file"),
    ],
)
def test_names_what_is_wrong_with_the_files(
    spark: SparkSession, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        kuairand.describe(spark, str(tmp_path), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "message"), [(None, "pass DATA="), ("/no/such", "no such path")])
def test_names_a_missing_path(spark: SparkSession, path: str | None, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        kuairand.describe(spark, path, {})


def test_aligns_history_without_showing_the_future(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "derived_log_standard_a.csv").write_text(LOG_HEADER + LATE)
    before, after = 1_650_800_000_000, 1_650_900_000_000
    rows = [
        # The older long watches (9, 8) lie before the window; the last watch of 5 is matched.
        (6, before, [5, 6, 5, 7], [6], [9, 8, 5, 7]),
        (7, after, [5], [], []),  # the last watch comes after the user's first logged event
        (9, after, [4], [4], []),  # not in the log
    ]
    schema = (
        "user_id long, last_time_ms long, watch_seq array<long>, like_seq array<long>, "
        "long_watch_seq array<long>"
    )
    table = tmp_path / "user_sequences.parquet"
    spark.createDataFrame(rows, schema).coalesce(1).write.parquet(str(table))
    manifest = kuairand.describe(spark, str(tmp_path), {})
    history = kuairand.history(spark, str(tmp_path), manifest, {})
    assert history is not None
    read = {row["user_id"]: row for row in history.collect()}
    assert set(read) == {"6", "9"}
    assert read["6"]["item_ids"] == ["5", "6", "5", "7"]
    assert read["6"]["action_bits"] == [0, 4, 2, 2]  # long_view is bit 1, like bit 2
    assert read["6"]["dwell_bucket"] == [0, 0, 0, 0]
    assert read["9"]["action_bits"] == [4]


def test_published_logs_need_no_history(spark: SparkSession, folder: Path) -> None:
    manifest = kuairand.describe(spark, str(folder), {})
    assert kuairand.history(spark, str(folder), manifest, {}) is None


def test_real_log_holds_its_known_duplicates(spark: SparkSession, real_data: Path) -> None:
    folder = real_data / "kuairand-pure"
    (log,) = folder.glob("derived_log_standard_*.csv.gz")
    source = read_csv(spark, [log]).drop("_source_text", "_is_broken", "_row_id")
    num_rows = source.count()
    assert num_rows == 228_329
    assert num_rows - source.distinct().count() == 5_460
    manifest = kuairand.describe(spark, str(folder), {})
    frame = kuairand.events(
        spark, str(folder), manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    counted = frame.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count_distinct("event_id").alias("ids"),
        F.count_distinct(F.xxhash64(*[name for name in frame.columns if name != "raw_text"])).alias(
            "distinct"
        ),
        F.count("raw_text").alias("broken"),
        F.sum(F.array_contains("actions", "click").cast("int")).alias("clicks"),
    ).first()
    assert counted is not None
    # 425 more rows repeat user, video and time with another hour of receipt or stay time; three
    # of them differ in nothing that a raw event keeps.
    assert counted.asDict() == {
        "rows": 228_329,
        "ids": 228_329 - 5_460 - 425,
        "distinct": 228_329 - 5_460 - 3,
        "broken": 0,
        "clicks": 100_900,
    }


def test_real_log_is_cleaned_whole(spark: SparkSession, real_data: Path) -> None:
    folder = str(real_data / "kuairand-pure")
    manifest = kuairand.describe(spark, folder, {})
    # 228,329 rows, of which 5,460 are copies; the further repeats are explained above.
    assert cleaning_counts(spark, kuairand, folder, manifest) == {
        "kept": 228_329 - 5_460 - 425,
        "exact_duplicate": 5_460 + 3,
        "key_duplicate": 425 - 3,
    }


def test_real_days_are_those_of_the_log_but_around_midnight(
    spark: SparkSession, real_data: Path
) -> None:
    folder = str(real_data / "kuairand-pure")
    manifest = kuairand.describe(spark, folder, {})
    assert (manifest.start_date, manifest.end_date) == (date(2022, 4, 24), date(2022, 5, 8))
    # The exact quantiles of time_ms, 1651755202165 and 1651905959862, within a bin.
    for start, exact in (
        (manifest.validation_start, 1_651_755_202),
        (manifest.test_start, 1_651_905_959),
    ):
        assert abs((start - datetime.fromtimestamp(exact, UTC)).total_seconds()) < 900
    frame = kuairand.events(
        spark, folder, manifest, {}, start=manifest.start_date, end=manifest.end_date
    )
    received = F.from_utc_timestamp(
        F.col("arrival_time") - F.expr("INTERVAL 1 HOUR"), "Asia/Shanghai"
    )
    days = F.date_diff(F.to_date(received), F.col("event_date"))
    hour = F.hour(F.from_utc_timestamp("event_time", "Asia/Shanghai"))
    found = frame.groupBy(days.alias("days"), (hour >= 21).alias("is_late")).count().collect()
    counts = {(row["days"], row["is_late"]): row["count"] for row in found}
    assert set(counts) == {(0, False), (0, True), (1, True)}
    assert counts[(1, True)] == 2_071


def test_real_history_precedes_the_log(spark: SparkSession, real_data: Path) -> None:
    folder = str(real_data / "kuairand-pure")
    manifest = kuairand.describe(spark, folder, {})
    history = kuairand.history(spark, folder, manifest, {})
    assert history is not None
    sizes = history.agg(
        F.count(F.lit(1)).alias("users"),
        F.sum(F.size("item_ids")).alias("watches"),
        F.sum((F.size("item_ids") != F.size("action_bits")).cast("int")).alias("uneven"),
    ).first()
    assert sizes is not None
    # Of 26,469 users, three watched last after their first logged event.
    assert (sizes["users"], sizes["watches"], sizes["uneven"]) == (26_466, 817_063, 0)
