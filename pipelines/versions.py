"""Attributes that change: make the versions of ids, and find those valid at a moment.

A moment is a long: microseconds since the epoch. What has no time of its own, as undated history,
lies before all times and has the version that is valid since ever.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, TimestampType

VALID = ("valid_from", "valid_to")
SINCE_EVER = -(2**63) + 1
_FOR_EVER = 2**63 - 1


def build_versions(
    described: DataFrame, ids: DataFrame, *, key: str, attributes: tuple[str, ...]
) -> DataFrame:
    """Order the descriptions of each id into versions without gap or overlap.

    Of several descriptions of one id from one instant, the one whose JSON is greatest is taken.
    One that says what the version before it says is no version of its own; an absent list or map
    says the same as an empty one. An id without a description since ever begins with one whose
    attributes are all null.

    Args:
        described: The key, the attributes, and `valid_from` (timestamp; null: since ever) where
            the source knows when attributes changed; without it every row is since ever.
        ids: The key of every id that shall have versions, those of `described` among them, once.
        key: Name of the id's column.
        attributes: Names of the columns that may change.

    Returns:
        The key, valid_from, valid_to and the attributes.
    """
    since_ever = F.lit(None).cast("timestamp")
    valid_from = F.col("valid_from") if "valid_from" in described.columns else since_ever
    rows = described.where(F.col(key).isNotNull()).select(
        key, valid_from.alias("valid_from"), *attributes, F.lit(False).alias("is_opening")
    )
    nothing = [F.lit(None).cast(rows.schema[name].dataType).alias(name) for name in attributes]
    opening = ids.select(
        key, since_ever.alias("valid_from"), *nothing, F.lit(True).alias("is_opening")
    )
    said = _said(rows, attributes)
    candidates = opening.unionByName(rows).withColumns(
        {"preferred": F.to_json(F.struct(*attributes)), "said": said}
    )
    by_preference = Window.partitionBy(key).orderBy(
        F.col("valid_from").asc_nulls_first(),
        "is_opening",
        F.col("preferred").desc(),
        F.col("said").desc(),
    )
    by_time = Window.partitionBy(key).orderBy(F.col("valid_from").asc_nulls_first())
    before = F.col("before")
    is_first_of_its_time = before.isNull() | ~before["valid_from"].eqNullSafe(F.col("valid_from"))
    changes = (
        candidates.withColumn("before", F.lag(F.struct("valid_from")).over(by_preference))
        .where(is_first_of_its_time)
        .withColumn("said_before", F.lag("said").over(by_time))
        .where(F.col("said_before").isNull() | (F.col("said_before") != F.col("said")))
    )
    return changes.select(
        key, "valid_from", F.lead("valid_from").over(by_time).alias("valid_to"), *attributes
    )


def says_anything(versions: DataFrame, *, attributes: tuple[str, ...]) -> Column:
    """Return whether any of some attributes of a version is there and not empty."""
    return _said(versions, attributes) != "{}"


def as_of(rows: DataFrame, versions: DataFrame, *, key: str) -> DataFrame:
    """Add to each row the columns of its id's version that is valid at the row's moment.

    Args:
        rows: The key and `moment`; no other column of the versions.
        versions: The key, valid_from, valid_to and the columns to add.
        key: Name of the id's column.

    Returns:
        The rows, each once, with the columns; null where the id has no version. Where each id
        has one version this is a join by the id.
    """
    spans = versions.withColumns({"_since": moment_since(), "_until": _moment_until()})
    spans = spans.withColumnRenamed(key, "_id").drop(*VALID)
    is_valid = (F.col("_since") <= F.col("moment")) & (F.col("moment") < F.col("_until"))
    joined = rows.join(spans, (F.col(key) == F.col("_id")) & is_valid, how="left")
    return joined.drop("_id", "_since", "_until")


def moment_since() -> Column:
    """Return the moment from which a version is valid."""
    return F.coalesce(F.unix_micros("valid_from"), F.lit(SINCE_EVER))


def _moment_until() -> Column:
    return F.coalesce(F.unix_micros("valid_to"), F.lit(_FOR_EVER))


def _said(rows: DataFrame, attributes: tuple[str, ...]) -> Column:
    """Return JSON that is equal where the attributes are: whole times, sorted maps, no empties."""
    columns = [_plain(name, rows.schema[name].dataType).alias(name) for name in attributes]
    return F.to_json(F.struct(*columns))


def _plain(name: str, kind: DataType) -> Column:
    if isinstance(kind, TimestampType):
        return F.unix_micros(name)
    if isinstance(kind, MapType):
        ordered = F.map_from_entries(F.array_sort(F.map_entries(name)))
        return F.when(F.size(name) > 0, ordered)
    if isinstance(kind, ArrayType):
        return F.when(F.size(name) > 0, F.col(name))
    return F.col(name)
