"""KuaiRand: a short-video feed with many feedback signals (Gao et al. 2022, CIKM).

Reads the published files of KuaiRand-Pure, -1K and -27K, plain or compressed, and a shortened
"derived" log with a table of earlier watches. What the files mean here:

- `time_ms` is the instant of an impression. `date` and `hourmin` are the hour in which the log
  received it, in China's time, and up to three hours later; `arrival_time` is the end of that
  hour. So an event shortly before midnight can carry the next day's `date`; it is filed under
  the day of `time_ms`.
- A row's id hashes user, video and `time_ms`: repeated rows collide on purpose, exact copies as
  well as the few that were logged again in the next hour or with another play time.
- `tab` (the page of the app) is the surface. Requests and positions are not recorded.
- `is_rand` marks videos inserted uniformly at random: `is_shuffled`. All rows of log_random
  carry it; log_standard and log_random are read together as one log.

What these files cannot supply:

- Text: tags and side features describe users and videos.
- Requests, positions and logging probabilities. How often a random video replaced a chosen one
  is not published, so `propensity` is null in the random log as well.
- A past: `video_features_statistic` sums over the whole period, which looks into the future, and
  is not read. Neither are the encrypted `onehot_feat*` columns.
- A history of attributes: videos and users are described once, as of the release, so each has
  one version.
- Times before the derived log: the watches of `user_sequences.parquet` are undated.
"""

from collections.abc import Mapping
from datetime import date
from functools import reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import (
    as_raw_events,
    epoch_instant,
    flag,
    identifier,
    names_of,
    present,
    row_id,
    string_map,
    whole_number,
    written_instant,
)
from pipelines.sources.file_columns import source_columns
from pipelines.sources.files import (
    BROKEN,
    TEXT,
)
from pipelines.sources.kuairand_files import (
    USERS,
    VIDEOS,
    file_kinds,
    history_file,
    log_files,
    read_columns,
    read_features,
    read_watches,
)
from pipelines.sources.kuairand_history import marks
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.time_span import describe_span, measure_files

ACTION_COLUMNS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "comment": "is_comment",
    "follow": "is_follow",
    "forward": "is_forward",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
POSITIVE_ACTIONS = ("click", "long_view", "like", "comment", "follow", "forward")
_TIMEZONE = "Asia/Shanghai"
_LOG_COLUMNS = (
    "user_id", "video_id", "date", "hourmin", "time_ms", *ACTION_COLUMNS.values(),
    "play_time_ms", "duration_ms", "is_rand", "tab",
)  # fmt: skip
_VIDEO_COLUMNS = (
    "video_id", "author_id", "video_type", "upload_dt", "upload_type", "video_duration",
    "server_width", "server_height", "music_id", "music_type", "tag",
)  # fmt: skip
_VIDEO_FEATURES = (
    "video_type", "upload_type", "server_width", "server_height", "music_id", "music_type",
)  # fmt: skip
_USER_FEATURES = (
    "user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range",
    "fans_user_num_range", "friend_user_num_range", "register_days_range",
)  # fmt: skip
_UNKNOWN_VALUES = ("-124", "UNKNOWN")


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the logs of a folder in one pass over them.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the event times.

    Args:
        spark: The session.
        path: Folder that holds the files, at any depth, or one log file.
        options: `timezone` replaces China's time for days and dayparts.

    Raises:
        SourceError: If files or columns are missing, or no row has a readable time.
    """
    logs = log_files(path)
    span = measure_files(
        _parsed(spark, logs).drop("actions"),
        files=logs,
        written="milliseconds",
    )
    zone = options.get("timezone", _TIMEZONE)
    return describe_span(
        span,
        zone=zone,
        columns=source_columns(file_kinds(path)),
        source="kuairand",
        actions=tuple(ACTION_COLUMNS),
        primary_action="click",
        positive_actions=POSITIVE_ACTIONS,
        surfaces=tuple(sorted(span.surfaces, key=lambda tab: (len(tab), tab))),
    )


def events(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
    *,
    start: date,
    end: date,
) -> DataFrame:
    """Return the impressions filed under a range of days, as raw_events."""
    parsed = _parsed(spark, log_files(path))
    return as_raw_events(parsed, manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the videos: author, tags, upload day (its first instant), duration, features."""
    videos = read_features(spark, path, name=VIDEOS, needed=_VIDEO_COLUMNS)
    features = {name: _category(F.col(name)) for name in _VIDEO_FEATURES}
    return videos.select(
        identifier(F.col("video_id")).alias("item_id"),
        written_instant(F.col("upload_dt"), pattern="yyyy-MM-dd", zone=_TIMEZONE).alias(
            "created_time"
        ),
        identifier(F.col("author_id")).alias("author_id"),
        F.filter(
            F.transform(F.split(F.coalesce("tag", F.lit("")), ","), F.trim),
            present,
        ).alias("tags"),
        F.lit(None).cast("string").alias("text"),
        whole_number(F.col("video_duration")).alias("duration_ms"),
        string_map(features).alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the users: activity, roles and ranges as features; no text."""
    people = read_features(spark, path, name=USERS, needed=("user_id", *_USER_FEATURES))
    features = {name: _category(F.col(name)) for name in _USER_FEATURES}
    return people.select(
        identifier(F.col("user_id")).alias("user_id"),
        F.lit(None).cast("string").alias("text"),
        string_map(features).alias("features"),
    )


def history(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame | None:
    """Return the undated watches from before the derived log, oldest first.

    Watches carry the bits `long_view` and `like`; the other actions were not recorded for them.
    The file lists liked and long-watched videos without their places, so each is matched to the
    latest watch that keeps the order. A user whose last watch is not before the user's first
    logged event is left out: it would show the future.

    Returns:
        user_id, item_ids, action_bits, dwell_bucket (all 0); None where the folder has no such
        table or holds the published log, which already contains these watches.
    """
    logs = log_files(path)
    table = history_file(logs)
    if table is None:
        return None
    watches = read_watches(spark, table)
    first_events = (
        _parsed(spark, logs).groupBy("user_id").agg(F.min("event_time").alias("first_time"))
    )
    known = watches.join(first_events, on="user_id", how="left")
    is_earlier = F.col("last_time") < F.col("first_time")
    past = known.where(F.col("first_time").isNull() | is_earlier)
    long_bit = 1 << manifest.actions.index("long_view")
    like_bit = 1 << manifest.actions.index("like")
    bits = F.zip_with(
        marks(F.col("watch_seq"), F.col("long_watch_seq"), bit=long_bit),
        marks(F.col("watch_seq"), F.col("like_seq"), bit=like_bit),
        lambda long_mark, like_mark: long_mark + like_mark,
    )
    return past.select(
        "user_id",
        F.col("watch_seq").alias("item_ids"),
        bits.alias("action_bits"),
        F.transform("watch_seq", lambda _: F.lit(0)).alias("dwell_bucket"),
    )


def _parsed(spark: SparkSession, logs: list[Path]) -> DataFrame:
    rows = read_columns(spark, logs, needed=_LOG_COLUMNS)
    flags = {name: flag(F.col(column)) for name, column in ACTION_COLUMNS.items()}
    numbers = {name: whole_number(F.col(name)) for name in ("play_time_ms", "duration_ms")}
    event_time = epoch_instant(F.col("time_ms"), unit="ms")
    unread = [present(F.col(name)) & number.isNull() for name, number in numbers.items()]
    unread += [value.isNull() for value in (*flags.values(), flag(F.col("is_rand")))]
    arrival, is_arrival_written = _arrival(), present(F.col("date")) | present(F.col("hourmin"))
    unread.append(is_arrival_written & arrival.isNull())
    is_unreadable = reduce(Column.__or__, unread, F.col(BROKEN) | event_time.isNull())
    text_if_broken = F.when(F.col(BROKEN), F.col(TEXT))
    return rows.select(
        row_id(F.col("user_id"), F.col("video_id"), F.col("time_ms"), text_if_broken).alias(
            "event_id"
        ),
        F.when(~is_unreadable, F.lit("impression")).alias("kind"),
        identifier(F.col("user_id")).alias("user_id"),
        identifier(F.col("video_id")).alias("item_id"),
        event_time.alias("event_time"),
        arrival.alias("arrival_time"),
        names_of(flags).alias("actions"),
        numbers["play_time_ms"].alias("dwell_ms"),
        numbers["duration_ms"].alias("duration_ms"),
        identifier(F.col("tab")).alias("surface"),
        flag(F.col("is_rand")).alias("is_shuffled"),
        F.when(is_unreadable, F.col(TEXT)).alias("raw_text"),
        F.col("time_ms").alias("time_text"),
    )


def _arrival() -> Column:
    written = F.concat(F.col("date"), F.lit(" "), F.lpad("hourmin", 4, "0"))
    hour = written_instant(written, pattern="yyyyMMdd HHmm", zone=_TIMEZONE)
    return hour + F.expr("INTERVAL 1 HOUR")


def _category(text: Column) -> Column:
    plain = F.regexp_replace(F.trim(text), r"\.0$", "")
    return F.when(~plain.isin(*_UNKNOWN_VALUES), plain)
