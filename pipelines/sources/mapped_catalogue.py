"""Items and users of a user's own log: from files of their own, or from columns of the log.

From the log an item or user takes, for each column, its earliest value: a later one would show
the future to the events before it. A file may hold several rows of one id, each valid from a time
on; one without a time holds since ever.
"""

from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import identifier, present, string_map, whole_number
from pipelines.sources.errors import SourceError
from pipelines.sources.files import BROKEN
from pipelines.sources.mapped_files import instant_of, read_mapped, text_of
from pipelines.sources.mapping import EntityColumns, LogMapping, NumberColumn, TimeColumn


def item_rows(spark: SparkSession, log: Path, mapping: LogMapping) -> DataFrame:
    """Return item_id, valid_from, created_time, author_id, tags, text, duration_ms and features."""
    entity = mapping.item
    duration = entity.duration or (mapping.duration if entity.file is None else None)
    described = _described(spark, log, mapping, key="item", duration=duration)
    created = F.col("created") if entity.created else F.lit(None)
    length = F.col("duration") if duration else F.lit(None)
    return described.select(
        F.col("id").alias("item_id"),
        _valid_from(entity),
        created.cast("timestamp").alias("created_time"),
        (identifier(F.col("author")) if entity.author else F.lit(None).cast("string")).alias(
            "author_id"
        ),
        _tags(entity).alias("tags"),
        _joined(entity).alias("text"),
        length.cast("bigint").alias("duration_ms"),
        _features(entity).alias("features"),
    )


def user_rows(spark: SparkSession, log: Path, mapping: LogMapping) -> DataFrame:
    """Return user_id, valid_from, text and features."""
    entity = mapping.user
    described = _described(spark, log, mapping, key="user", duration=None)
    return described.select(
        F.col("id").alias("user_id"),
        _valid_from(entity),
        _joined(entity).alias("text"),
        _features(entity).alias("features"),
    )


def _described(
    spark: SparkSession,
    log: Path,
    mapping: LogMapping,
    *,
    key: str,
    duration: NumberColumn | None,
) -> DataFrame:
    """Return the entity's mapped columns under the names of their keys, and `id`."""
    entity = mapping.item if key == "item" else mapping.user
    raw = _entity_file(spark, mapping, entity, key) if entity.file else _log(spark, log, mapping)
    values = {name: text_of(raw, source) for name, source in entity.columns.items()}
    values = {name: value for name, value in values.items() if "." not in name}
    if entity.created:
        values["created"] = instant_of(raw, entity.created, mapping=mapping)
    if entity.valid_from:
        values["valid_from"] = _readable_instant(raw, mapping, entity.valid_from, key=key)
    if duration:
        values["duration"] = whole_number(text_of(raw, duration.column), scale=duration.scale)
    values["id"] = identifier(values["id"])
    named = [value.alias(name) for name, value in values.items()]
    if entity.file is not None:
        return raw.select(*named).where(F.col("id").isNotNull())
    time = instant_of(raw, mapping.time, mapping=mapping)
    dated = raw.select(*named, time.alias("_time")).where(F.col("id").isNotNull())
    earliest = [_earliest(name).alias(name) for name in values if name != "id"]
    return dated.groupBy("id").agg(F.min("_time").alias("_first_time"), *earliest)


def _earliest(name: str) -> Column:
    value = F.col(f"`{name}`")
    order = F.struct(F.col("_time").isNull(), F.col("_time"), value)
    return F.min_by(value, F.when(value.isNotNull(), order))


def _readable_instant(raw: DataFrame, mapping: LogMapping, time: TimeColumn, *, key: str) -> Column:
    """Return the time from which rows hold; a wrong one would show the future to the past.

    Raises:
        SourceError: If a time that is written cannot be read, or its row is torn.
    """
    instant, text = instant_of(raw, time, mapping=mapping), text_of(raw, time.column)
    is_unread = F.col(BROKEN) | (present(text) & instant.isNull())
    unread = raw.where(is_unread).select(text.alias("text")).first()
    if unread is not None:
        raise SourceError(
            f"mapping {mapping.path}: {key}.valid_from cannot be read in a row whose column "
            f"{time.column!r} holds {unread['text']!r}; correct the row, or the format"
        )
    return instant


def _valid_from(entity: EntityColumns) -> Column:
    known = F.col("valid_from") if entity.valid_from else F.lit(None)
    return known.cast("timestamp").alias("valid_from")


def _entity_file(
    spark: SparkSession, mapping: LogMapping, entity: EntityColumns, key: str
) -> DataFrame:
    if entity.file is None or not entity.file.exists():
        raise SourceError(
            f"mapping {mapping.path}: {key}.file names {entity.file}, which does not exist; "
            "write it relative to the mapping's folder"
        )
    names = {f"{key}.{name}": source for name, source in entity.columns.items()}
    layout = (entity.format, entity.delimiter)
    return read_mapped(spark, entity.file, mapping=mapping, names=names, layout=layout)


def _log(spark: SparkSession, log: Path, mapping: LogMapping) -> DataFrame:
    layout = (mapping.format, mapping.delimiter)
    return read_mapped(spark, log, mapping=mapping, names=mapping.columns, layout=layout)


def _joined(entity: EntityColumns) -> Column:
    parts = [F.trim(F.col(f"`text[{place}]`")) for place in range(len(entity.text))]
    joined = F.concat_ws(" ", *(F.when(part != "", part) for part in parts))
    return F.when(joined != "", joined) if parts else F.lit(None).cast("string")


def _features(entity: EntityColumns) -> Column:
    named = {name: F.col(f"`features[{place}]`") for place, name in enumerate(entity.features)}
    return string_map(named)


def _tags(entity: EntityColumns) -> Column:
    if entity.tags is None:
        return F.array().cast("array<string>")
    text = F.coalesce("tags", F.lit(""))
    listed = F.when(text.startswith("["), F.from_json(text, "array<string>"))
    parts = F.coalesce(listed, F.split(text, rf"\Q{entity.tags_separator}\E"))
    return F.array_distinct(F.filter(F.transform(parts, F.trim), present))
