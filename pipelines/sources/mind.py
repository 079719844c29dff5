"""MIND: impressions of a news page with titles and abstracts (Wu et al. 2020, ACL).

Reads the published folders or zips of MINDsmall and MINDlarge (behaviors.tsv and news.tsv), one
or more of them together. What the files mean here:

- A line of behaviors.tsv is a request; each `news-label` in its last column is one impression.
  Its number starts anew in every set, so a request's id hashes number, user and time, and an
  impression's id hashes these and the news.
- Times are written without a zone, and the publisher states none. They are read as a clock of
  the manifest's zone, UTC by default, so hours and days are always those that are written,
  whatever the zone; instants are right up to a constant.
- The history of a user is the one of the user's first request: what was clicked in the weeks
  before the log, in order and without dates.

What these files cannot supply:

- Positions: the publisher shuffled each request's news. So `position` is null, as are logging
  probabilities and dwell times.
- User profiles, publication times, authors and durations. Bodies of articles and the vectors
  of entities are not read.
- A history of attributes: articles are described once, so each has one version.
- Labels of the test set: a folder that holds it is refused.
"""

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import (
    as_raw_events,
    identifier,
    names_of,
    present,
    row_id,
    string_map,
    written_instant,
)
from pipelines.sources.files import BROKEN, TEXT
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.mind_files import BEHAVIOURS, read_behaviours, read_news, set_folders
from pipelines.sources.time_span import describe_span, measure_files

SURFACE = "news"
_PATTERN = "M/d/yyyy h:mm:ss a"
_LABELLED = r"^(.+)-([01])$"


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the sets in one pass over their requests.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the requests.

    Args:
        spark: The session.
        path: Folder that holds the sets, at any depth, or one zip.
        options: `timezone` is the zone whose clock the times show, UTC by default.

    Raises:
        SourceError: If files are missing, of another layout, or no time can be read.
    """
    folders = set_folders(path)
    zone = options.get("timezone", "UTC")
    requests = read_behaviours(spark, folders).select(
        _time(zone).alias("event_time"),
        F.col("time").alias("time_text"),
        F.lit(SURFACE).alias("surface"),
    )
    files = [folder / BEHAVIOURS for folder in folders]
    span = measure_files(requests, files=files, written="11/15/2019 8:55:22 AM")
    return describe_span(
        span,
        zone=zone,
        columns={},
        source="mind",
        actions=("click",),
        primary_action="click",
        positive_actions=("click",),
        surfaces=(SURFACE,),
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
    """Return the impressions filed under a range of days, as raw_events.

    A line whose columns, time or list of news cannot be read is one row that keeps its text; a
    news without a label 0 or 1 is one row that keeps the line's text with this news alone.
    """
    requests = read_behaviours(spark, set_folders(path))
    time = _time(manifest.timezone)
    is_whole = ~F.col(BROKEN) & time.isNotNull() & present(F.col("shown"))
    listed = F.filter(F.split("shown", r"\s+"), present)
    nothing = F.array(F.lit(None).cast("string"))
    shown = requests.withColumns({"time_read": time, "is_whole": is_whole}).select(
        "*", F.explode(F.when(is_whole, listed).otherwise(nothing)).alias("token")
    )
    parsed = shown.select(*_columns())
    return as_raw_events(parsed, manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the articles: title and abstract as text, category and subcategory as tags."""
    news = read_news(spark, set_folders(path))
    words = F.concat_ws(" ", identifier(F.col("title")), identifier(F.col("abstract")))
    tags = F.array_compact(F.array(*(identifier(F.col(n)) for n in ("category", "subcategory"))))
    return news.where(~F.col(BROKEN) & present(F.col("news"))).select(
        identifier(F.col("news")).alias("item_id"),
        F.lit(None).cast("timestamp").alias("created_time"),
        F.lit(None).cast("string").alias("author_id"),
        F.array_distinct(tags).alias("tags"),
        identifier(words).alias("text"),
        F.lit(None).cast("bigint").alias("duration_ms"),
        string_map({}).alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the users, of whom nothing but their clicks is known."""
    requests = read_behaviours(spark, set_folders(path))
    people = requests.where(~F.col(BROKEN)).select(identifier(F.col("user")).alias("user_id"))
    return (
        people.where(F.col("user_id").isNotNull())
        .distinct()
        .select(
            "user_id", F.lit(None).cast("string").alias("text"), string_map({}).alias("features")
        )
    )


def history(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return each user's clicks from before the user's first request, oldest first, undated.

    Returns:
        user_id, item_ids, action_bits (click), dwell_bucket (all 0).
    """
    requests = read_behaviours(spark, set_folders(path))
    clicked = F.filter(F.split(F.coalesce("history", F.lit("")), r"\s+"), present)
    timed = requests.where(~F.col(BROKEN)).select(
        identifier(F.col("user")).alias("user_id"),
        F.struct(_time(manifest.timezone).alias("time"), clicked.alias("item_ids")).alias("first"),
    )
    known = timed.where(F.col("user_id").isNotNull() & F.col("first.time").isNotNull())
    earliest = known.groupBy("user_id").agg(F.min("first")["item_ids"].alias("item_ids"))
    return earliest.where(F.size("item_ids") > 0).select(
        "user_id",
        "item_ids",
        F.transform("item_ids", lambda _: F.lit(manifest.primary_bit)).alias("action_bits"),
        F.transform("item_ids", lambda _: F.lit(0)).alias("dwell_bucket"),
    )


def _columns() -> list[Column]:
    """Return the canonical columns of one impression, or of a line that is not whole."""
    request = (F.col("impression"), F.col("user"), F.col("time"))
    token = F.col("token")
    is_labelled = F.col("is_whole") & token.rlike(_LABELLED)
    line = F.when(F.col("is_whole"), F.concat_ws("\t", *request, token)).otherwise(F.col(TEXT))
    news = F.when(is_labelled, F.regexp_extract(token, _LABELLED, 1))
    is_click = F.regexp_extract(token, _LABELLED, 2) == "1"
    text = F.when(~is_labelled, line)
    return [
        row_id(*request, news, text).alias("event_id"),
        F.when(is_labelled, F.lit("impression")).alias("kind"),
        F.when(F.col("is_whole"), row_id(*request)).alias("request_id"),
        identifier(F.col("user")).alias("user_id"),
        news.alias("item_id"),
        F.col("time_read").alias("event_time"),
        names_of({"click": is_labelled & is_click}).alias("actions"),
        F.lit(SURFACE).alias("surface"),
        text.alias("raw_text"),
    ]


def _time(zone: str) -> Column:
    return written_instant(F.col("time"), pattern=_PATTERN, zone=zone)
