"""Side features as words: numbers become bucketed words, so that close values read alike.

This module does not know what a feature means; a name that ends in `_id` marks an identifier.
"""

from itertools import pairwise

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.prompts import clean_user_text

_DURATION_BOUNDS_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_NUMBER = r"^-?\d+(\.\d+)?$"
_DATE = r"^\d{4}-\d{2}-\d{2}"


def duration_text(duration_ms: Column) -> Column:
    """Write a duration as its bucket, such as `duration 30 to 60 seconds`.

    Args:
        duration_ms: Integer column of milliseconds.

    Returns:
        A string column, null where the duration is null or not positive.
    """
    seconds = duration_ms / 1000
    text = F.when(duration_ms <= 0, F.lit(None).cast("string"))
    text = text.when(seconds < _DURATION_BOUNDS_SECONDS[0], "duration below 5 seconds")
    for low, high in pairwise(_DURATION_BOUNDS_SECONDS):
        text = text.when(seconds < high, f"duration {low} to {high} seconds")
    return text.when(duration_ms.isNotNull(), "duration above 3600 seconds")


def number_text(number: Column) -> Column:
    """Write a number as words: whole numbers below ten stand, others become a 1-2-5 range.

    Args:
        number: Double column.

    Returns:
        A string column such as `7` or `200 to 500`; null stays null.
    """
    power = F.pow(F.lit(10.0), F.floor(F.log10(number)))
    low = F.when(number < 2 * power, power).when(number < 5 * power, 2 * power)
    low = low.otherwise(5 * power)
    high = F.when(number < 2 * power, 2 * power).when(number < 5 * power, 5 * power)
    high = high.otherwise(10 * power)
    is_small_whole = (number >= 0) & (number < 10) & (number == F.floor(number))
    return (
        F.when(number < 0, "below 0")
        .when(is_small_whole, number.cast("long").cast("string"))
        .when(number < 1, "below 1")
        .when(number.isNotNull(), F.concat_ws(" to ", _whole(low), _whole(high)))
    )


def _whole(number: Column) -> Column:
    return number.cast("decimal(38,0)").cast("string")


def _feature_text(name: Column, value: Column) -> Column:
    words = F.regexp_replace(F.regexp_replace(name, "_id$", ""), "_", " ")
    is_identifier = name.endswith("_id")
    written = (
        F.when(is_identifier, value)
        .when(value.rlike(_NUMBER), number_text(value.try_cast("double")))
        .when(value.rlike(_DATE), F.substring(value, 1, 7))
        .otherwise(F.regexp_replace(value, "_", " "))
    )
    return clean_user_text(F.concat_ws(" ", words, written))


def features_text(features: Column, *, item_id: Column | None = None, limit: int = 64) -> Column:
    """Write a feature map as words, in the order of the names.

    Args:
        features: Map of strings; null counts as empty. Null and empty values are left out.
        item_id: Where given, a feature that repeats this id is left out.
        limit: Features to keep.

    Returns:
        A string column, empty where there is no feature.
    """
    empty = F.create_map().cast("map<string,string>")
    entries = F.array_sort(F.map_entries(F.coalesce(features, empty)))

    def is_kept(entry: Column) -> Column:
        value = entry["value"]
        kept = value.isNotNull() & (F.trim(value) != "")
        if item_id is None:
            return kept
        names_an_id = entry["key"].endswith("_id") | ~value.rlike(_NUMBER)
        return kept & ~((value == item_id) & names_an_id)

    kept = F.slice(F.filter(entries, is_kept), 1, limit)
    texts = F.transform(kept, lambda entry: _feature_text(entry["key"], entry["value"]))
    return F.array_join(texts, " ")
