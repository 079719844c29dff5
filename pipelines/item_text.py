"""Item text: the words that describe an item, for the text encoder and for prompts.

The item's id is never part of its text: a model must place a new item by what it is.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.feature_text import duration_text, features_text
from pipelines.prompts import clean_user_text, first_words, join_nonempty, tags_text
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_TEXT

_MAX_WORDS = 256
_MAX_TAGS = 16


def build_item_text(
    versions: DataFrame, *, items: DataFrame, manifest: SourceManifest
) -> DataFrame:
    """Describe every item in the words of its identity, whatever was said of it later.

    Args:
        versions: The item_versions table; those with `is_identity` are used.
        items: The items table, for `first_seen_time`.
        manifest: The source's manifest; `validation_start` bounds the items to fit on.

    Returns:
        A frame of the item_text table; `text` is never null nor empty, and `is_fitted` says that
        the item was created or first shown before the validation split, and its text is from
        before it.
    """
    boundary = F.lit(manifest.validation_start)
    is_known = F.least("created_time", "first_seen_time") < boundary
    is_written = F.coalesce(F.col("valid_from") < boundary, F.lit(True))
    return (
        versions.where("is_identity")
        .join(items.select("item_id", "first_seen_time"), on="item_id", how="left")
        .withColumns(
            described_in_words() | {"is_fitted": F.coalesce(is_known, F.lit(False)) & is_written}
        )
        .select(*ITEM_TEXT.column_names)
    )


def described_in_words() -> dict[str, Column]:
    """Return `text` and `origin` as of the item_text table, of a row with an item's attributes.

    The source's own text is used where there is any; else tags, author, duration and side
    features are written as words, numbers as buckets (`duration 30 to 60 seconds`).
    """
    own_text = first_words(clean_user_text(F.col("text")), num_words=_MAX_WORDS)
    has_text = F.coalesce(own_text != "", F.lit(False))
    described = F.when(has_text, own_text).otherwise(_text_from_features())
    return {
        "text": F.when(described != "", described).otherwise("no description"),
        "origin": F.when(has_text, "text").otherwise("features"),
    }


def _text_from_features() -> Column:
    return first_words(
        join_nonempty(
            [
                tags_text(F.col("tags"), num_tags=_MAX_TAGS),
                F.concat(F.lit("author "), clean_user_text(F.col("author_id"))),
                duration_text(F.col("duration_ms")),
                features_text(F.col("features"), item_id=F.col("item_id")),
            ]
        ),
        num_words=_MAX_WORDS,
    )
