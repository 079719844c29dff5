"""Amazon reviews of 2014, 5-core, as sequences: order and gaps, and no dates.

Reads a category's `<category>_timedelta.txt` (a line is `user item item ... <TAB> gap gap ...`;
a gap is the seconds since the user's event before, in whole days), its
`<category>_item2attributes.json` and, where there is one, `<category>_id_asin_text.tsv`. SASRec,
S3-Rec and TIGER report on these sequences, by leave-one-out.

**The clock is made up.** Tables need times, and these files have none. Each user's last event
stands at `TEST_DAY`, the one before it at `VALIDATION_DAY`, and the others end on the day before
that, apart by their gaps; a user with fewer than three events has training events only. To that
the place in the sequence is added in seconds, so that the order of one day is kept. So a split
by time is exactly leave-one-out, and before the test starts nothing of it is seen. What the
clock does not say: two users' times have nothing to do with each other, and the gaps before the
last two events are not in the tables. The manifest says so by `has_dates` being false.

What these files cannot supply, beside dates:

- Dayparts, content ages, popularity and rates as of a day: unknown in sequences and prompts.
- What was shown and passed over, so nothing to rank: rankers are skipped. Every review counts
  as engagement, whatever its stars.
- Attributes are anonymous numbers, of one version. ASINs are identifiers, and not read as
  features. Users have no features.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.amazon_sequences_files import (
    file_kinds,
    read_attributes,
    read_texts,
    sequence_files,
)
from pipelines.sources.canonical import as_raw_events, identifier, row_id, string_map
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import source_columns
from pipelines.sources.files import readable
from pipelines.sources.manifest import NEED_IMPRESSIONS, NO_IMPRESSIONS, SourceManifest

ACTION, SURFACE = "review", "reviews"
VALIDATION_DAY = datetime(2000, 1, 1, tzinfo=UTC)  # plainly unreal: nothing is that old
TEST_DAY = VALIDATION_DAY + timedelta(days=1)
_LAST_TRAINING_DAY = VALIDATION_DAY - timedelta(days=1)
_LONGEST = 80_000  # places, in seconds, must not reach the next day
_MAX_GAPS_SECONDS = 99 * 365 * 86_400
_SPLIT_FROM = 3


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the sequences in one pass over them.

    Args:
        spark: The session.
        path: Folder that holds one category, at any depth, or its file of sequences.
        options: Not used: without dates there is no zone.

    Raises:
        SourceError: If files are missing, or no line can be read.
    """
    file = sequence_files(path).sequences
    with readable(file):
        found = _parsed(spark, path).agg(F.count(F.lit(1)), F.min("event_time")).first()
    num_rows, first_time = found if found else (0, None)
    if not num_rows:
        raise SourceError(f"{file} has no rows; fetch it again")
    if first_time is None:
        raise SourceError(
            f"no line of {file} reads as `user item ... <TAB> gap ...` with a gap for every item; "
            "fetch it again"
        )
    return SourceManifest(
        source="amazon_sequences",
        actions=(ACTION,),
        primary_action=ACTION,
        positive_actions=(ACTION,),
        surfaces=(SURFACE,),
        start_date=first_time.replace(tzinfo=UTC).date(),
        end_date=TEST_DAY.date(),
        validation_start=VALIDATION_DAY,
        test_start=TEST_DAY,
        timezone="UTC",
        partition_unit="month",
        has_impressions=False,
        has_dates=False,
        cannot_feed=dict.fromkeys(NEED_IMPRESSIONS, NO_IMPRESSIONS),
        columns=source_columns(file_kinds(path)),
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
    """Return the reviews filed under a range of the clock's days, as raw_events.

    A line that is not `user item ... <TAB> gap ...` with a gap for every item is one row that
    keeps its text.
    """
    return as_raw_events(_parsed(spark, path), manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the products: attributes as tags, and the text where there is one."""
    files = sequence_files(path)
    products = read_attributes(spark, files.attributes)
    if files.texts is None:
        products = products.withColumn("text", F.lit(None).cast("string"))
    else:
        products = products.join(read_texts(spark, files.texts), on="item", how="left")
    named = F.transform("attributes", lambda number: F.concat(F.lit("attribute "), number))
    return products.select(
        identifier(F.col("item")).alias("item_id"),
        F.lit(None).cast("timestamp").alias("created_time"),
        F.lit(None).cast("string").alias("author_id"),
        F.coalesce(F.array_compact(named), F.array().cast("array<string>")).alias("tags"),
        identifier(F.col("text")).alias("text"),
        F.lit(None).cast("bigint").alias("duration_ms"),
        string_map({}).alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the reviewers, of whom nothing but their reviews is known."""
    reviewers = _parsed(spark, path).select("user_id").where(F.col("user_id").isNotNull())
    return reviewers.distinct().select(
        "user_id", F.lit(None).cast("string").alias("text"), string_map({}).alias("features")
    )


def _parsed(spark: SparkSession, path: str | None) -> DataFrame:
    lines = _lines(spark, path)
    nothing = F.array(F.lit(None).cast("string"))
    shown = lines.select(
        "*", F.posexplode(F.when(F.col("is_whole"), F.col("items")).otherwise(nothing))
    )
    is_whole, place, size = F.col("is_whole"), F.col("pos"), F.size("items")
    return shown.select(
        row_id(F.col("value"), place).alias("event_id"),
        F.when(is_whole, F.lit("action")).alias("kind"),
        F.when(is_whole, F.col("user")).alias("user_id"),
        F.col("col").alias("item_id"),
        F.when(is_whole, _clock(place, size, F.col("gaps"))).alias("event_time"),
        F.when(is_whole, F.array(F.lit(ACTION))).alias("actions"),
        F.lit(SURFACE).alias("surface"),
        F.when(~is_whole, F.col("value")).alias("raw_text"),
    )


def _lines(spark: SparkSession, path: str | None) -> DataFrame:
    """Return each line's value, user, items, gaps, and whether it `is_whole`."""
    file = sequence_files(path).sequences
    lines = spark.read.text(str(file)).where(F.length(F.trim("value")) > 0)
    halves = F.split("value", r"\t")
    names = F.split(F.trim(F.get(halves, F.lit(0))), r" +")
    written = F.split(F.trim(F.get(halves, F.lit(1))), r" +")
    parts = lines.select(
        "value",
        F.size(halves).alias("num_halves"),
        F.get(names, F.lit(0)).alias("user"),
        F.slice(names, 2, F.greatest(F.size(names) - 1, F.lit(0))).alias("items"),
        F.transform(written, lambda gap: gap.try_cast("bigint")).alias("gaps"),
    )
    total = F.aggregate("gaps", F.lit(0).cast("bigint"), F.try_add)
    is_whole = (
        (F.col("num_halves") == 2)
        & (F.size("items").between(1, _LONGEST))
        & (F.size("items") == F.size("gaps"))
        & F.forall("gaps", lambda gap: gap.isNotNull() & (gap >= 0))
        & (total <= _MAX_GAPS_SECONDS)
    )
    return parts.withColumn("is_whole", F.coalesce(is_whole, F.lit(False)))


def _clock(place: Column, size: Column, gaps: Column) -> Column:
    """Return the made-up time of an event, see the module.

    Args:
        place: Place in the sequence, from 0.
        size: Events of the sequence.
        gaps: Seconds since the event before, one per event.
    """
    num_training = F.when(size < _SPLIT_FROM, size).otherwise(size - 2)
    following = F.slice(gaps, place + 2, F.greatest(num_training - place - 1, F.lit(0)))
    later = F.aggregate(following, F.lit(0).cast("bigint"), lambda sum_, gap: sum_ + gap)
    day = (
        F.when(place < num_training, F.lit(int(_LAST_TRAINING_DAY.timestamp())) - later)
        .when(place == num_training, F.lit(int(VALIDATION_DAY.timestamp())))
        .otherwise(F.lit(int(TEST_DAY.timestamp())))
    )
    return F.timestamp_seconds(day + place)
