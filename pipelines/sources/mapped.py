"""A user's own log, read as a mapping file says (`examples/mapping.toml` documents its keys).

Three kinds of logs: "impressions" (a column of action names, one of which is `impression`),
"labelled" (each row is an impression with one 0/1 column per action) and "positives_only".
A row with a time, an arrival or a number that cannot be read keeps its text in `raw_text` and has
no kind, so that cleaning rejects it; an arrival that is not written is unknown. Where the source
has no ids, a row's id hashes all its columns.
"""

from collections.abc import Mapping
from datetime import date
from functools import reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.canonical import (
    as_raw_events,
    flag,
    identifier,
    names_of,
    present,
    whole_number,
)
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import all_columns, column_notes
from pipelines.sources.files import BROKEN, ROW_ID, TEXT, existing_path, readable
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.mapped_catalogue import item_rows, user_rows
from pipelines.sources.mapped_checks import describe_log
from pipelines.sources.mapped_files import columns_by_file, instant_of, read_mapped, text_of
from pipelines.sources.mapping import IMPRESSION, LogMapping, load_mapping
from pipelines.sources.time_span import measure

ONLY_SURFACE = "log"
_EXPECTED = "csv, jsonl or parquet file or folder"


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe a log in one pass over it.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the event times.

    Args:
        spark: The session.
        path: File or folder of the log.
        options: `mapping`, the mapping file; `timezone` replaces its zone of days.

    Raises:
        SourceError: If the files or the mapping are not what they should be.
    """
    mapping = load_mapping(options.get("mapping"))
    log, raw = _open(spark, path, mapping)
    with readable(log):
        measured = raw.select(
            instant_of(raw, mapping.time, mapping=mapping).alias("event_time"),
            text_of(raw, mapping.time.column).alias("time_text"),
            *_arrival(raw, mapping),
            _surface(raw, mapping).alias("surface"),
            F.array_compact(F.array(_action_name(raw, mapping))).alias("actions"),
        )
        span = measure(measured)
    columns, zone = all_columns(_columns(log, mapping)), options.get("timezone")
    return describe_log(span, mapping=mapping, log=log, zone=zone, columns=columns)


def changed_columns(
    path: str | None, manifest: SourceManifest, options: Mapping[str, str]
) -> dict[str, str]:
    """Return what differs in the columns of the log, from file to file or since it was described.

    Args:
        path: File or folder of the log.
        manifest: The source as it was described.
        options: `mapping`, the mapping file.

    Returns:
        Title to text; empty where nothing differs. What each difference means for the rows is
        said in file_columns.py.
    """
    mapping = load_mapping(options.get("mapping"))
    log = existing_path(path, source="mapped", expected=_EXPECTED)
    return column_notes(_columns(log, mapping), known=manifest.columns)


def events(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
    *,
    start: date,
    end: date,
) -> DataFrame:
    """Return the rows filed under a range of days, as raw_events; an action under its own day.

    Raises:
        SourceError: If files or the mapping are not what they should be, or the data home was
            made when an action was filed under the day of its impression.
    """
    mapping = load_mapping(options.get("mapping"))
    _, raw = _open(spark, path, mapping)
    if (mapping.log == "impressions") != manifest.actions_filed_apart:
        raise SourceError(
            "this data home was made when actions were filed under the days of their impressions; "
            "start over with make clean-data"
        )
    return as_raw_events(_parsed(raw, mapping), manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the items, from their own file or from the log's columns (earliest values)."""
    mapping = load_mapping(options.get("mapping"))
    return item_rows(spark, existing_path(path, source="mapped", expected=_EXPECTED), mapping)


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the users, from their own file or from the log's columns (earliest values)."""
    mapping = load_mapping(options.get("mapping"))
    return user_rows(spark, existing_path(path, source="mapped", expected=_EXPECTED), mapping)


def _open(spark: SparkSession, path: str | None, mapping: LogMapping) -> tuple[Path, DataFrame]:
    log = existing_path(path, source="mapped", expected=_EXPECTED)
    layout = (mapping.format, mapping.delimiter)
    return log, read_mapped(spark, log, mapping=mapping, names=mapping.columns, layout=layout)


def _columns(log: Path, mapping: LogMapping) -> dict[str, dict[str, str]]:
    return columns_by_file(log, file_format=mapping.format, delimiter=mapping.delimiter)


def _parsed(raw: DataFrame, mapping: LogMapping) -> DataFrame:
    ids = {key: identifier(text_of(raw, name)) for key, name in mapping.ids.items()}
    nothing = F.lit(None).cast("string")
    flags = {name: flag(text_of(raw, text)) for name, text in mapping.action_flags.items()}
    numbers = _numbers(raw, mapping)
    action = _action_name(raw, mapping)
    is_impression = F.lit(True) if flags else action == IMPRESSION
    event_time = instant_of(raw, mapping.time, mapping=mapping)
    written, arrival = _arrival(raw, mapping)
    unread = [
        present(text) & value.isNull() for text, value in (*numbers.values(), (written, arrival))
    ]
    unread += [value.isNull() for value in flags.values()] if flags else [action.isNull()]
    is_unreadable = reduce(Column.__or__, unread, F.col(BROKEN) | event_time.isNull())
    kind = F.when(is_impression, F.lit("impression")).otherwise(F.lit("action"))
    own_id = F.when(is_impression, ids.get("impression", nothing))
    names = F.array_compact(F.array(F.when(action != IMPRESSION, action)))
    return raw.select(
        F.coalesce(ids.get("event", own_id), F.col(ROW_ID)).alias("event_id"),
        F.when(~is_unreadable, kind).alias("kind"),
        ids.get("impression", nothing).alias("impression_id"),
        ids.get("request", nothing).alias("request_id"),
        ids["user"].alias("user_id"),
        ids["item"].alias("item_id"),
        event_time.alias("event_time"),
        arrival,
        (names_of(flags) if flags else names).alias("actions"),
        *(number.alias(name) for name, (_, number) in numbers.items()),
        _surface(raw, mapping).alias("surface"),
        F.when(is_unreadable, F.col(TEXT)).alias("raw_text"),
    )


def _numbers(raw: DataFrame, mapping: LogMapping) -> dict[str, tuple[Column, Column]]:
    """Return each mapped number as (its text, its value)."""
    numbers = {}
    for name, source in (("dwell_ms", mapping.dwell), ("duration_ms", mapping.duration)):
        if source is not None:
            text = text_of(raw, source.column)
            numbers[name] = (text, whole_number(text, scale=source.scale))
    if mapping.position is not None:
        text = text_of(raw, mapping.position)
        rank = whole_number(text) - F.lit(mapping.first_position)
        numbers["position"] = (text, rank.try_cast("int"))
    return numbers


def _arrival(raw: DataFrame, mapping: LogMapping) -> tuple[Column, Column]:
    """Return when the log received each row: as written and as an instant, null where unknown."""
    if mapping.arrival is None:
        text, instant = F.lit(None).cast("string"), F.lit(None).cast("timestamp")
    else:
        text = identifier(text_of(raw, mapping.arrival.column))
        instant = instant_of(raw, mapping.arrival, mapping=mapping)
    return text.alias("arrival_text"), instant.alias("arrival_time")


def _action_name(raw: DataFrame, mapping: LogMapping) -> Column:
    """Return a row's action after renaming, null where none is written or flags are used."""
    if mapping.action_column is None:
        is_single = mapping.log == "positives_only"
        return F.lit(mapping.primary_action if is_single else None).cast("string")
    written = identifier(text_of(raw, mapping.action_column))
    renamed = [F.when(written == old, F.lit(new)) for old, new in mapping.action_names.items()]
    return F.coalesce(*renamed, written)


def _surface(raw: DataFrame, mapping: LogMapping) -> Column:
    name = mapping.ids.get("surface")
    return F.lit(ONLY_SURFACE) if name is None else identifier(text_of(raw, name))
