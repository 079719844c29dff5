"""TencentGR-1M and -10M: sequences of ads with exposures, clicks and conversions (2604.04976).

Reads the parquet folders of the release: `seq` (user_id and a list of item_id, action_type and
timestamp), `item_feat` and `user_feat` (one column per field, named by its number). What they
mean here:

- Each element of a user's sequence is an exposed ad with the furthest that came of it: nothing
  (0), a click (1) or a conversion (2). A conversion is attributed to a click, so it counts as
  both. TencentGR-1M has no conversions, and then the manifest does not name them.
- `timestamp` is in seconds. Days and dayparts are China's, an assumption: no zone is published.
- Identifiers are the release's renumbered ones, from 1; 0 is unknown, in features as well.
- A row's id hashes user, item and timestamp: elements that repeat these are found by cleaning.

What these files cannot supply:

- Text: items and users are described by anonymous fields alone (`field_100`, ...).
- Requests, positions, surfaces, dwell times, logging probabilities, and the order of events of
  one second. When a click or conversion happened: its time is that of the exposure.
- Anything beyond a user's last 100 events: earlier days are thinner than they were.
- Publication times and authors, and a history of attributes: each ad and user has one version.

Not read: the embeddings of `mm_emb`, the `candidate` pool, which serves the contest's own
held-out answers, and `indexer.pkl`, since reading a pickle runs whatever is in it.
"""

import re
from collections.abc import Mapping
from datetime import date
from functools import reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StructType

from pipelines.sources.canonical import (
    as_raw_events,
    epoch_instant,
    names_of,
    row_id,
    string_map,
)
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import FileKind, require_columns, source_columns
from pipelines.sources.files import column, existing_path
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.parquet_files import alike_files, parquet_files, read_parquet
from pipelines.sources.time_span import describe_span, measure_files

SURFACE = "ads"
_ACTIONS = ("click", "conversion")
_EXPECTED = "folder of TencentGR with seq, item_feat and user_feat"
_FOLDERS = ("seq", "item_feat", "user_feat")
_EVENT_FIELDS = ("item_id", "action_type", "timestamp")
_FIELD = r"\d+"
_CREATIVE = "111"  # old releases: the item's own id once more
_TIMEZONE = "Asia/Shanghai"


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the sequences in one pass over them.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the times.

    Args:
        spark: The session.
        path: Folder that holds `seq`, `item_feat` and `user_feat`.
        options: `timezone` replaces China's time for days and dayparts.

    Raises:
        SourceError: If a folder or column is missing, no time can be read, or nothing was clicked.
    """
    folder = _folder(path, "seq")
    span = measure_files(_parsed(spark, folder), files=[folder], written="seconds")
    actions = tuple(name for name in _ACTIONS if name in span.actions)
    if not actions:
        raise SourceError(f"no event in {folder} has the action_type 1 (click); fetch it again")
    zone = options.get("timezone", _TIMEZONE)
    return describe_span(
        span,
        zone=zone,
        columns=source_columns(file_kinds(path)),
        source="tencentgr",
        actions=actions,
        primary_action="click",
        positive_actions=actions,
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
    """Return the exposures filed under a range of days, as raw_events of labelled impressions.

    An element without a readable time, or of an unknown action type, and a user whose sequence
    is null keep their text as JSON in `raw_text`. An empty sequence holds no event.
    """
    parsed = _parsed(spark, _folder(path, "seq"))
    return as_raw_events(parsed, manifest=manifest, start=start, end=end)


def items(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the ads with their fields as features."""
    ads, features = _described(spark, _folder(path, "item_feat"), key="item_id")
    return ads.select(
        "item_id",
        F.lit(None).cast("timestamp").alias("created_time"),
        F.lit(None).cast("string").alias("author_id"),
        F.array().cast("array<string>").alias("tags"),
        F.lit(None).cast("string").alias("text"),
        F.lit(None).cast("bigint").alias("duration_ms"),
        features.alias("features"),
    )


def users(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
) -> DataFrame:
    """Return the users with their fields as features; of several values all, comma-separated."""
    people, features = _described(spark, _folder(path, "user_feat"), key="user_id")
    return people.select(
        "user_id", F.lit(None).cast("string").alias("text"), features.alias("features")
    )


def _folder(path: str | None, name: str) -> Path:
    root = existing_path(path, source="tencentgr", expected=_EXPECTED)
    found = root / name
    if not found.is_dir():
        raise SourceError(f"no folder {name} in {root}; pass DATA=<{_EXPECTED}>")
    return found


def file_kinds(path: str | None) -> list[FileKind]:
    """Return the files of the folders that are there.

    Raises:
        SourceError: If the path is missing, or a file is not Parquet.
    """
    root = existing_path(path, source="tencentgr", expected=_EXPECTED)
    folders = [root / name for name in _FOLDERS if (root / name).is_dir()]
    return [
        FileKind(name=folder.name, files=parquet_files(folder), file_format="parquet")
        for folder in folders
    ]


def _parsed(spark: SparkSession, folder: Path) -> DataFrame:
    """Return the canonical columns, file by file where the types of the sequences differ."""
    groups = alike_files(folder)
    read = [(read_parquet(spark, folder, files), files[0]) for files in groups]
    for frame, file in read:
        _check_sequences(frame.schema, folder if len(groups) == 1 else file)
    return reduce(DataFrame.unionByName, [_parsed_rows(frame) for frame, _ in read])


def _parsed_rows(raw: DataFrame) -> DataFrame:
    nothing = F.array(F.lit(None).cast(raw.schema["seq"].dataType.elementType))  # type: ignore[attr-defined]
    rows = raw.select("user_id", F.explode(F.coalesce("seq", nothing)).alias("event"))
    user, item = _known_id(F.col("user_id")), _known_id(F.col("event.item_id"))
    code = F.col("event.action_type").cast("string").try_cast("double")
    time = epoch_instant(F.col("event.timestamp").cast("string"), unit="s")
    is_readable = F.coalesce(code.isin(0, 1, 2), F.lit(False)) & time.isNotNull()
    text = F.when(~is_readable, F.to_json(F.struct("user_id", "event")))
    flags = {"click": code.isin(1, 2), "conversion": code == 2}
    return rows.select(
        row_id(F.col("user_id"), F.col("event.item_id"), F.col("event.timestamp"), text).alias(
            "event_id"
        ),
        F.when(is_readable, F.lit("impression")).alias("kind"),
        user.alias("user_id"),
        item.alias("item_id"),
        time.alias("event_time"),
        names_of({name: is_readable & is_on for name, is_on in flags.items()}).alias("actions"),
        F.lit(SURFACE).alias("surface"),
        text.alias("raw_text"),
        F.col("event.timestamp").cast("string").alias("time_text"),
    )


def _check_sequences(schema: StructType, place: Path) -> None:
    """Refuse sequences of other columns than the release's.

    Raises:
        SourceError: Naming the first column or field that is missing.
    """
    require_columns(place, schema.fieldNames(), needed=("user_id", "seq"))
    listed = schema["seq"].dataType
    element = listed.elementType if isinstance(listed, ArrayType) else None
    if not isinstance(element, StructType):
        raise SourceError(
            f"the column 'seq' of {place} is {listed.simpleString()}, not a list of structs with "
            f"{', '.join(_EVENT_FIELDS)}; fetch it again"
        )
    require_columns(place, element.fieldNames(), needed=_EVENT_FIELDS)


def _described(spark: SparkSession, folder: Path, *, key: str) -> tuple[DataFrame, Column]:
    """Return the rows of known ids in a folder of fields, and their map of features."""
    raw = read_parquet(spark, folder)
    require_columns(folder, raw.columns, needed=(key,))
    fields = [name for name in raw.columns if re.fullmatch(_FIELD, name) and name != _CREATIVE]
    if not fields:
        there = ", ".join(raw.columns[:-3])
        raise SourceError(f"{folder} has no column named by a field's number: {there}")
    values = {f"field_{name}": _value(name, raw.schema[name].dataType) for name in fields}
    known = raw.withColumn(key, _known_id(F.col(key)))
    return known.where(F.col(key).isNotNull()), string_map(values)


def _value(name: str, kind: DataType) -> Column:
    """Return a field as text, its values joined by commas; unknown values (0) are left out."""
    if isinstance(kind, ArrayType):
        texts = F.filter(column(name).cast("array<string>"), lambda value: value != "0")
        return F.array_join(texts, ",")
    text = column(name).cast("string")
    return F.when(text != "0", text)


def _known_id(number: Column) -> Column:
    text = number.cast("string")
    return F.when(text != "0", text)
