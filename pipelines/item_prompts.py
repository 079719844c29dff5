"""Item prompts: each item as text on each day, with its numbers as percentiles of that day.

The words of a day are those that were valid when the day began. An item that had none by then, as
one published on that day, has its first ones where they were known before its first event of the
day; the catalogue, which is of the day's beginning, never has them.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.daypart import start_of_day
from pipelines.item_counters import counters_as_of
from pipelines.item_numbers import item_numbers, mean_rates
from pipelines.item_text import described_in_words
from pipelines.items import described_since
from pipelines.percentile_cuts import assign_percentiles
from pipelines.prompts import (
    ITEM_AGE,
    ITEM_POPULARITY,
    ITEM_RATE,
    ITEM_TAGS,
    ITEM_WORDS,
    join_nonempty,
    own_tags,
    own_words,
    percentile_text,
)
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_PROMPTS
from pipelines.versions import SINCE_EVER, VALID, as_of

_AGE_WORDS = ("undated", "new", "days", "week", "month", "old")
_MAX_WORDS = 12
_MAX_TAGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemPromptInputs:
    """Group the tables that item prompts are built from.

    Attributes:
        item_days: The item_days table, all days.
        versions: The item_versions table.
        counters: The item_counters table.
        cuts: The percentile_cuts table.
    """

    item_days: DataFrame
    versions: DataFrame
    counters: DataFrame
    cuts: DataFrame


def build_item_prompts(inputs: ItemPromptInputs, *, manifest: SourceManifest) -> DataFrame:
    """Write every item as text for each day on which it was shown, and the whole catalogue once.

    The catalogue is every item as of the local day of `test_start`. All numbers are those of the
    days strictly before a row's day.

    Args:
        inputs: Item days, item versions, item counters and percentile cuts.
        manifest: The source's manifest.

    Returns:
        A frame of the item_prompts table, one row per item and day.
    """
    day = catalogue_day(manifest)
    versions = inputs.versions
    everything = versions.where(F.col("valid_from").isNull())
    snapshot = counters_as_of(inputs.item_days, manifest=manifest, day=day, items=everything)
    shown_other_days = inputs.counters.where(F.col("event_date") != F.lit(day))
    numbers = item_numbers(
        shown_other_days.unionByName(snapshot),
        rates=mean_rates(inputs.item_days, manifest=manifest),
        versions=versions,
        manifest=manifest,
    )
    daily = assign_percentiles(numbers, inputs.cuts, features=("popularity", "rate"))
    written = (
        versions.withColumns(described_in_words())
        .withColumns(_item_parts())
        .select("item_id", *VALID, "item_index", "tags_part", "words_part")
    )
    is_catalogue = F.col("event_date") == F.lit(day)
    began = F.unix_micros(start_of_day(F.col("event_date"), zone=manifest.timezone))
    moment = F.when(is_catalogue, began).otherwise(F.greatest(began, "first_words"))
    dated = daily.join(
        _first_words(versions, inputs.item_days), on=["item_id", "event_date"], how="left"
    ).withColumns({"is_catalogue": is_catalogue, "moment": moment})
    prompt = join_nonempty([F.col("tags_part"), *_day_parts(), F.col("words_part")])
    worded = as_of(dated, written, key="item_id").withColumn("prompt", prompt)
    return worded.select(*ITEM_PROMPTS.column_names)


def _first_words(versions: DataFrame, item_days: DataFrame) -> DataFrame:
    """Return item_id, event_date and the moment up to which first words count on that day.

    It is that of the first words or of the item's first event of the day, whichever was earlier.
    Only items that were described later than since ever are in it.
    """
    since = versions.select("item_id", described_since(versions).alias("since")).distinct()
    later = since.where(F.col("since") > F.lit(SINCE_EVER))
    shown = item_days.join(later, on="item_id", how="inner").groupBy("item_id", "event_date")
    first_event = F.min(F.unix_micros("first_event_time"))
    return shown.agg(F.least(first_event, F.min("since")).alias("first_words"))


def catalogue_day(manifest: SourceManifest) -> date:
    """Return the local day on which the test split starts."""
    start: datetime = manifest.test_start
    aware = start if start.tzinfo else start.replace(tzinfo=UTC)
    return aware.astimezone(ZoneInfo(manifest.timezone)).date()


def _item_parts() -> dict[str, Column]:
    tags = own_tags(num_tags=_MAX_TAGS)
    words = own_words(num_words=_MAX_WORDS)
    return {
        "tags_part": F.when(tags != "", F.concat_ws(" ", F.lit(ITEM_TAGS), tags)),
        "words_part": F.concat_ws(" ", F.lit(ITEM_WORDS), words),
    }


def _day_parts() -> list[Column]:
    ages = F.array(*(F.lit(word) for word in _AGE_WORDS))
    return [
        F.lit(ITEM_POPULARITY),
        percentile_text(F.col("popularity_percentile")),
        F.lit(ITEM_RATE),
        percentile_text(F.col("rate_percentile")),
        F.lit(ITEM_AGE),
        F.coalesce(F.get(ages, F.col("age_bucket")), F.lit(_AGE_WORDS[0])),
    ]
