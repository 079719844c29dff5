"""MovieLens: dated ratings of movies (Harper and Konstan 2015, GroupLens).

Reads the published zip files or their unpacked folders: the comma-separated sets (ml-latest,
ml-latest-small, 20M, 25M, 32M), ml-1m and ml-10M ("::"), and ml-100k (u.data, u.item, u.user).

Every rating is taken as a labelled impression, with the action `like` at four stars or more. A
row's id hashes user, movie and time.

What these files cannot supply:

- What was shown and passed over: the exposure is self-selected, people rate what they chose to
  watch. So the rate of `like` says what people think of movies they picked, not what they would
  think of a movie they are shown. There are no requests, positions, dwell times or logging
  probabilities.
- When somebody watched: ratings are often entered in bulk, and their times say when that was.
- When a movie was published: its year, in the title, is a feature and no publication time.
- A history of attributes: movies and users are described once, so each has one version.
- Users, but for ml-100k and ml-1m, whose codes for age and occupation stay codes. Zip codes,
  free tags, links and tag genomes are not read.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import (
    as_raw_events,
    epoch_instant,
    identifier,
    names_of,
    present,
    row_id,
    string_map,
)
from pipelines.sources.file_columns import source_columns
from pipelines.sources.files import BROKEN, TEXT
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.movielens_files import (
    GENRES_100K,
    File,
    Layout,
    file_kinds,
    read_published,
    unpacked,
)
from pipelines.sources.time_span import describe_span, measure_files

SURFACE = "ratings"
LIKE_FROM = 4.0
_NO_GENRES = "(no genres listed)"
_YEAR = r"\((\d{4})\)\s*$"


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe a set in one pass over its ratings.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the rating times.

    Args:
        spark: The session.
        path: The zip file or the unpacked folder.
        options: `timezone` replaces UTC for days and dayparts.

    Raises:
        SourceError: If files are missing or broken, or no rating has a readable time.
    """
    folder, layout = unpacked(path)
    ratings = _parsed(spark, folder, layout)
    span = measure_files(ratings, files=[folder / layout.ratings.name], written="seconds")
    zone = options.get("timezone", "UTC")
    return describe_span(
        span,
        zone=zone,
        columns=source_columns(file_kinds(path)),
        source="movielens",
        actions=("like",),
        primary_action="like",
        positive_actions=("like",),
        surfaces=(SURFACE,),
        partition_unit="month",
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
    """Return the ratings filed under a range of days, as raw_events of labelled impressions.

    A line that cannot be read, or whose rating is not above 0 and at most 5, keeps its text in
    `raw_text`.
    """
    folder, layout = unpacked(path)
    parsed = _parsed(spark, folder, layout)
    return as_raw_events(parsed, manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the movies: title as text, genres as tags, the title's year as a feature.

    A year is too coarse for a publication time, so `created_time` is null.
    """
    folder, layout = unpacked(path)
    movies = read_published(spark, folder, layout.movies)
    year = F.regexp_extract(F.col("title"), _YEAR, 1)
    return movies.where(present(F.col("movie"))).select(
        identifier(F.col("movie")).alias("item_id"),
        F.lit(None).cast("timestamp").alias("created_time"),
        F.lit(None).cast("string").alias("author_id"),
        _genres(layout.movies).alias("tags"),
        F.trim("title").alias("text"),
        F.lit(None).cast("bigint").alias("duration_ms"),
        string_map({"year": year}).alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the users: age, gender and occupation as features where the set has them."""
    folder, layout = unpacked(path)
    if layout.users is None or not (folder / layout.users.name).exists():
        raters = read_published(spark, folder, layout.ratings)
        people = raters.select(identifier(F.col("user")).alias("user_id")).distinct()
        features = string_map({})
    else:
        people = read_published(spark, folder, layout.users).withColumn("user_id", F.trim("user"))
        features = string_map({name: F.trim(name) for name in ("age", "gender", "occupation")})
    return people.where(present(F.col("user_id"))).select(
        "user_id", F.lit(None).cast("string").alias("text"), features.alias("features")
    )


def _parsed(spark: SparkSession, folder: Path, layout: Layout) -> DataFrame:
    rows = read_published(spark, folder, layout.ratings)
    event_time = epoch_instant(F.col("timestamp"), unit="s")
    rating = F.trim("rating").try_cast("double")
    is_rating = F.coalesce((rating > 0) & (rating <= 5), F.lit(False))
    is_unreadable = F.col(BROKEN) | event_time.isNull() | ~is_rating
    text_if_broken = F.when(F.col(BROKEN), F.col(TEXT))
    return rows.select(
        row_id(F.col("user"), F.col("movie"), F.col("timestamp"), text_if_broken).alias("event_id"),
        F.when(~is_unreadable, F.lit("impression")).alias("kind"),
        identifier(F.col("user")).alias("user_id"),
        identifier(F.col("movie")).alias("item_id"),
        event_time.alias("event_time"),
        names_of({"like": is_rating & (rating >= LIKE_FROM)}).alias("actions"),
        F.lit(SURFACE).alias("surface"),
        F.when(is_unreadable, F.col(TEXT)).alias("raw_text"),
        F.col("timestamp").alias("time_text"),
    )


def _genres(movies: File) -> Column:
    if "genres" in movies.columns:
        listed = F.split(F.coalesce("genres", F.lit("")), r"\|")
        return F.filter(listed, lambda tag: present(tag) & (tag != _NO_GENRES))
    return names_of({name: F.col(f"`{name}`") == "1" for name in GENRES_100K if name != "unknown"})
