"""Files of a user's own log: find them, tell their format, check the mapped columns, read them."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DateType, TimestampNTZType, TimestampType

from pipelines.sources.canonical import epoch_instant, written_instant
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import file_columns
from pipelines.sources.files import (
    column,
    csv_header,
    first_lines,
    json_keys,
    read_csv,
    read_jsonl,
)
from pipelines.sources.mapping import FORMATS, LogMapping, TimeColumn
from pipelines.sources.mapping_section import closest
from pipelines.sources.parquet_files import parquet_columns, read_parquet

_ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet",
}  # fmt: skip
_COMPRESSED = (".gz", ".bz2")
_SAMPLE_LINES = 1_000
# Who, what and when; without an action's column every row would count as a refusal.
_ESSENTIAL = ("columns.user", "columns.item", "time.column", "item.id", "user.id")


def read_mapped(
    spark: SparkSession,
    path: Path,
    *,
    mapping: LogMapping,
    names: Mapping[str, str],
    layout: tuple[str | None, str],
) -> DataFrame:
    """Read the files at a path.

    Args:
        spark: The session.
        path: A file, or a folder of files of one format.
        mapping: The mapping, for messages.
        names: Key of the mapping to the column that it names. Some file must have it, and every
            file where it says who did what and when.
        layout: Format, or None to tell by the ending; and the separator of a CSV file.

    Returns:
        The files' columns (at least those named) with `TEXT`, `BROKEN` and `ROW_ID`. Strings,
        except in Parquet files.

    Raises:
        SourceError: If there are no such files, they cannot be read, or lack a named column.
    """
    written_format, delimiter = layout
    files = _files(path)
    file_format = written_format or _format_of(path, files)
    if file_format == "jsonl":
        _require(names, _json_keys(spark, files, names), path=path, mapping=mapping)
        return read_jsonl(spark, files, names=tuple(dict.fromkeys(names.values())))
    if file_format == "parquet":
        frame = read_parquet(spark, path, files)
        headers = {file: [*parquet_columns(file), *_folder_columns(file, path)] for file in files}
        _require_in_files(names, headers, path=path, mapping=mapping)
        return frame
    headers = {file: csv_header(file, delimiter=delimiter) for file in files}
    _require_in_files(names, headers, path=path, mapping=mapping)
    by_header: dict[tuple[str, ...], list[Path]] = {}
    for file, header in headers.items():
        by_header.setdefault(tuple(header), []).append(file)
    frames = [read_csv(spark, same, delimiter=delimiter) for same in by_header.values()]
    return reduce(lambda one, two: one.unionByName(two, allowMissingColumns=True), frames)


def columns_by_file(
    path: Path, *, file_format: str | None, delimiter: str
) -> dict[str, dict[str, str]]:
    """Return the name of each file at a path with its columns and their types, without Spark.

    Args:
        path: A file, or a folder of files of one format.
        file_format: Format, or None to tell by the ending.
        delimiter: Field separator of a CSV file.

    Raises:
        SourceError: If there are no such files or one cannot be read.
    """
    files = _files(path)
    kind = file_format or _format_of(path, files)
    named = {str(file.relative_to(path)) if file != path else file.name: file for file in files}
    return {
        name: file_columns(file, file_format=kind, delimiter=delimiter)
        for name, file in named.items()
    }


def text_of(frame: DataFrame, name: str) -> Column:
    """Return a column as text; an array becomes JSON."""
    if isinstance(frame.schema[name].dataType, ArrayType):
        return F.to_json(column(name))
    return column(name).cast("string")


def instant_of(frame: DataFrame, time: TimeColumn, *, mapping: LogMapping) -> Column:
    """Return a mapped time column as an instant, null where it cannot be read.

    Raises:
        SourceError: If the column is text and neither a unit nor a format is given.
    """
    kind = frame.schema[time.column].dataType
    if isinstance(kind, TimestampType):
        return column(time.column)
    if isinstance(kind, TimestampNTZType | DateType):
        wall_clock = F.date_format(column(time.column), "yyyy-MM-dd'T'HH:mm:ss.SSSSSS")
        return written_instant(wall_clock, pattern="iso", zone=time.zone)
    text = column(time.column).cast("string")
    if time.unit:
        return epoch_instant(text, unit=time.unit)
    if time.pattern:
        return written_instant(text, pattern=time.pattern, zone=time.zone)
    raise SourceError(
        f"mapping {mapping.path}: the time column {time.column!r} holds text or numbers; "
        "add unit = 's', 'ms' or 'us', or a format"
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(file, path))
    if not found:
        endings = ", ".join(_ENDINGS)
        raise SourceError(f"no log files in {path}; their names should end in one of {endings}")
    return found


def _is_data(file: Path, root: Path) -> bool:
    inside = file.relative_to(root).parts
    return _ending(file) in _ENDINGS and not any(part[0] in "._" for part in inside)


def _ending(file: Path) -> str:
    plain = file.with_suffix("") if file.suffix.lower() in _COMPRESSED else file
    return plain.suffix.lower()


def _format_of(path: Path, files: list[Path]) -> str:
    found = sorted({_ENDINGS.get(_ending(file), "unknown") for file in files})
    if len(found) > 1:
        raise SourceError(f"{path} mixes {' and '.join(found)} files; keep one format in it")
    if found == ["unknown"]:
        choices = ", ".join(FORMATS)
        raise SourceError(f"cannot tell the format of {path}; set format in the mapping: {choices}")
    return found[0]


def _folder_columns(file: Path, root: Path) -> list[str]:
    """Return the columns that a file's `name=value` folders give."""
    if file == root:
        return []
    folders = file.relative_to(root).parts[:-1]
    return [folder.split("=", 1)[0] for folder in folders if "=" in folder]


def _require_in_files(
    names: Mapping[str, str],
    headers: Mapping[Path, list[str]],
    *,
    path: Path,
    mapping: LogMapping,
) -> None:
    """Require each named column in some file, and in every file those that nothing replaces."""
    everywhere = list(dict.fromkeys(name for header in headers.values() for name in header))
    _require(names, everywhere, path=path, mapping=mapping)
    essential = {key: name for key, name in names.items() if _is_essential(key)}
    for file, header in headers.items():
        _require(essential, header, path=file, mapping=mapping)


def _is_essential(key: str) -> bool:
    return key.startswith("action.column") or key in _ESSENTIAL


def _require(
    names: Mapping[str, str], there: list[str] | tuple[str, ...], *, path: Path, mapping: LogMapping
) -> None:
    for key, name in names.items():
        if name not in there:
            raise SourceError(
                f"mapping {mapping.path}: {key} names the column {name!r}, which {path} lacks"
                f"{closest(name, there)}; its columns are: {', '.join(there)}"
            )


def _json_keys(spark: SparkSession, files: list[Path], names: Mapping[str, str]) -> list[str]:
    """Return the keys of the first lines, and any named key that only later lines have."""
    lines = first_lines(spark, files, limit=_SAMPLE_LINES)
    keys = dict.fromkeys(json_keys(lines))
    rare = [name for name in dict.fromkeys(names.values()) if name not in keys]
    if rare and keys:
        rows = read_jsonl(spark, files, names=rare)
        seen = rows.agg(*(F.max(column(name).isNotNull()).alias(name) for name in rare)).first()
        keys |= {name: None for name in rare if seen and seen[name]}
    elif lines and not keys:
        raise SourceError(f"{files[0]} holds no JSON objects; give its format in the mapping")
    elif not lines:
        raise SourceError(f"the log {files[0]} is empty; it should hold one JSON object per line")
    return list(keys)
