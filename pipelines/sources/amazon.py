"""Amazon reviews of 2018 and 2023: dated ratings of products (McAuley Lab).

Reads the published JSON lines, plain or compressed, of one or more categories: reviews
(`<category>.json` or, of 2018, the 5-core `<category>_5.json`; `<category>.jsonl` of 2023), each
beside its `meta_<category>`. The two releases are told apart by their keys.

Every review is taken as a labelled impression, with the action `like` at four stars or more. A
row's id hashes user, product and time, so a review that the files repeat is found by cleaning.
Products of 2023 are the parents of their variants (`parent_asin`), as in the metadata.

What these files cannot supply:

- What was shown and passed over: people review what they chose to buy, so the rate of `like` says
  what they think of it and not what they would do with a product that they are shown. There
  are no requests, positions, dwell times or logging probabilities.
- The time of purchase: times are those of the review. Those of 2018 are whole days in UTC, so
  the order within a day is unknown and the daypart is always midnight.
- When a product came to be, and who the reviewers are: `created_time` is null and users have no
  features. Ratings' averages, prices and sales ranks are as of the crawl, which would show the
  future, and are not read; neither are names of reviewers, texts of reviews and images.
- A history of attributes: products are described as of the crawl, so each has one version.
- Products without metadata: their reviews are rejected as `unknown_item`.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.amazon_files import (
    Layout,
    file_kinds,
    layout_of,
    read_metadata,
    read_reviews,
    review_files,
)
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
from pipelines.sources.time_span import describe_span, measure_files

SURFACE = "reviews"
LIKE_FROM = 4.0
_WRITTEN = {"s": "seconds", "ms": "milliseconds"}
_SCRIPT = "getTime"  # some titles of 2018 are a piece of the page's program
_MARKUP = r"</?[A-Za-z][^>]*>"


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the reviews in one pass over them.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the times.

    Args:
        spark: The session.
        path: Folder that holds reviews and metadata, at any depth, or one file of reviews.
        options: `timezone` replaces UTC for days and dayparts.

    Raises:
        SourceError: If files or columns are missing, or no review has a readable time.
    """
    files = review_files(path)
    layout = layout_of(spark, files)
    span = measure_files(
        _parsed(spark, files, layout),
        files=files,
        written=_WRITTEN[layout.unit],
    )
    zone = options.get("timezone", "UTC")
    return describe_span(
        span,
        zone=zone,
        columns=source_columns(file_kinds(path)),
        source="amazon",
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
    """Return the reviews filed under a range of days, as raw_events of labelled impressions.

    A line that is no JSON, or whose time or stars (1 to 5) cannot be read, keeps its text in
    `raw_text`.
    """
    files = review_files(path)
    parsed = _parsed(spark, files, layout_of(spark, files))
    return as_raw_events(parsed, manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the products: title as text, brand as author, categories as tags, department."""
    files = review_files(path)
    products = read_metadata(spark, files, layout_of(spark, files))
    listed = F.from_json("categories", "array<string>")
    tags = F.transform(F.coalesce(listed, F.array().cast("array<string>")), _plain)
    return products.where(present(F.col("item"))).select(
        identifier(F.col("item")).alias("item_id"),
        F.lit(None).cast("timestamp").alias("created_time"),
        _plain(F.col("brand")).alias("author_id"),
        F.array_distinct(F.filter(tags, present)).alias("tags"),
        F.when(~F.col("title").contains(_SCRIPT), _plain(F.col("title"))).alias("text"),
        F.lit(None).cast("bigint").alias("duration_ms"),
        string_map({"department": _plain(F.col("department"))}).alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the reviewers, of whom nothing is known."""
    files = review_files(path)
    reviews = _parsed(spark, files, layout_of(spark, files))
    reviewers = reviews.select("user_id").where(F.col("user_id").isNotNull()).distinct()
    return reviewers.select(
        "user_id", F.lit(None).cast("string").alias("text"), string_map({}).alias("features")
    )


def _parsed(spark: SparkSession, files: list[Path], layout: Layout) -> DataFrame:
    rows = read_reviews(spark, files, layout)
    event_time = epoch_instant(F.col("time"), unit=layout.unit)
    stars = F.trim("rating").try_cast("double")
    is_rating = F.coalesce(stars.between(1, 5), F.lit(False))
    is_unreadable = F.col(BROKEN) | event_time.isNull() | ~is_rating
    text_if_broken = F.when(F.col(BROKEN), F.col(TEXT))
    return rows.select(
        row_id(F.col("user"), F.col("item"), F.col("time"), text_if_broken).alias("event_id"),
        F.when(~is_unreadable, F.lit("impression")).alias("kind"),
        identifier(F.col("user")).alias("user_id"),
        identifier(F.col("item")).alias("item_id"),
        event_time.alias("event_time"),
        names_of({"like": is_rating & (stars >= LIKE_FROM)}).alias("actions"),
        F.lit(SURFACE).alias("surface"),
        F.when(is_unreadable, F.col(TEXT)).alias("raw_text"),
        F.col("time").alias("time_text"),
    )


def _plain(text: Column) -> Column:
    """Return a text without markup, null where nothing else is left."""
    return identifier(F.regexp_replace(text, _MARKUP, " "))
