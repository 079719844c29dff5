"""Item prompts: each item as text on each day, with its numbers as percentiles of that day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.item_counters import counters_as_of
from pipelines.item_numbers import item_numbers, mean_rates
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

_AGE_WORDS = ("undated", "new", "days", "week", "month", "old")
_MAX_WORDS = 12
_MAX_TAGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemPromptInputs:
    """Group the tables that item prompts are built from.

    Attributes:
        item_days: The item_days table, all days.
        items: The items table.
        item_text: The item_text table.
        counters: The item_counters table.
        cuts: The percentile_cuts table.
    """

    item_days: DataFrame
    items: DataFrame
    item_text: DataFrame
    counters: DataFrame
    cuts: DataFrame


def build_item_prompts(inputs: ItemPromptInputs, *, manifest: SourceManifest) -> DataFrame:
    """Write every item as text for each day on which it was shown, and the whole catalogue once.

    The catalogue is every item as of the local day of `test_start`. All numbers are those of the
    days strictly before a row's day.

    Args:
        inputs: Item days, items, item text, item counters and percentile cuts.
        manifest: The source's manifest.

    Returns:
        A frame of the item_prompts table, one row per item and day.
    """
    day = catalogue_day(manifest)
    snapshot = counters_as_of(inputs.item_days, manifest=manifest, day=day, items=inputs.items)
    shown_other_days = inputs.counters.where(F.col("event_date") != F.lit(day))
    numbers = item_numbers(
        shown_other_days.unionByName(snapshot),
        rates=mean_rates(inputs.item_days, manifest=manifest),
        items=inputs.items,
        manifest=manifest,
    )
    daily = assign_percentiles(numbers, inputs.cuts, features=("popularity", "rate"))
    written = (
        inputs.item_text.join(inputs.items.select("item_id", "tags"), on="item_id", how="left")
        .withColumns(_item_parts())
        .select("item_id", "item_index", "tags_part", "words_part")
    )
    return (
        daily.join(written, on="item_id", how="inner")
        .withColumns(
            {
                "is_catalogue": F.col("event_date") == F.lit(day),
                "prompt": join_nonempty([F.col("tags_part"), *_day_parts(), F.col("words_part")]),
            }
        )
        .select(*ITEM_PROMPTS.column_names)
    )


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
