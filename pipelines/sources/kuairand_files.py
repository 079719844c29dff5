"""KuaiRand's files: the published names, found at any depth below a folder."""

import re
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from pipelines.sources.canonical import epoch_instant
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import FileKind, require_columns
from pipelines.sources.files import BROKEN, TEXT, existing_path, matching_files, read_csv
from pipelines.sources.parquet_files import parquet_files, read_parquet

HISTORY = "user_sequences.parquet"
USERS = "user_features"
VIDEOS = "video_features_basic"
_LISTS = ("watch_seq", "long_watch_seq", "like_seq")
_FOLDER = "folder of KuaiRand"
_CSV = r"_.*\.csv(\.gz|\.bz2)?"
_LOG = rf"log_(standard|random){_CSV}"
_DERIVED_LOG = rf"derived_{_LOG}"


def log_files(path: str | None) -> list[Path]:
    """Return the logs, each once; the shortened "derived" ones only where there are no others.

    Raises:
        SourceError: If the path is missing or holds no log.
    """
    root = existing_path(path, source="kuairand", expected=_FOLDER)
    if root.is_file():
        return [root]
    found = matching_files(root, _LOG) or matching_files(root, _DERIVED_LOG)
    if not found:
        raise SourceError(f"no log_standard_*.csv under {root}; pass DATA=<{_FOLDER}>")
    return found


def file_kinds(path: str | None) -> list[FileKind]:
    """Return the files that are read: logs, features and, beside a shortened log, its watches.

    Raises:
        SourceError: If the path is missing or holds no log.
    """
    logs = log_files(path)
    folder = logs[0].parent
    kinds = [FileKind(name="log", files=logs, file_format="csv")]
    for name in (VIDEOS, USERS):
        kinds.append(FileKind(name=name, files=_feature_files(folder, name), file_format="csv"))
    if (watches := history_file(logs)) is not None:
        files = parquet_files(watches)
        kinds.append(FileKind(name=watches.stem, files=files, file_format="parquet"))
    return kinds


def history_file(logs: list[Path]) -> Path | None:
    """Return the table of earlier watches, which only a shortened log needs; None without one."""
    table = logs[0].parent / HISTORY
    return table if table.exists() and all(is_derived(log) for log in logs) else None


def read_watches(spark: SparkSession, table: Path) -> DataFrame:
    """Read the earlier watches: user_id, last_time, and the lists of `_LISTS`, as strings.

    Raises:
        SourceError: If a column is missing, or one of the lists is none.
    """
    frame = read_parquet(spark, table)
    require_columns(table, frame.columns, needed=("user_id", "last_time_ms", *_LISTS))
    for name in _LISTS:
        kind = frame.schema[name].dataType
        if not isinstance(kind, ArrayType):
            raise SourceError(
                f"the column {name!r} of {table} is {kind.simpleString()}, not a list of videos; "
                "fetch it again"
            )
    return frame.select(
        F.col("user_id").cast("string").alias("user_id"),
        epoch_instant(F.col("last_time_ms").cast("string"), unit="ms").alias("last_time"),
        *(F.col(name).cast("array<string>").alias(name) for name in _LISTS),
    )


def is_derived(log: Path) -> bool:
    """Return whether a log is a shortened one, without the days before it."""
    return re.fullmatch(_DERIVED_LOG, log.name) is not None


def read_features(
    spark: SparkSession, path: str | None, *, name: str, needed: tuple[str, ...]
) -> DataFrame:
    """Read the needed columns of the features beside the logs.

    Args:
        spark: The session.
        path: The source's path.
        name: Start of the published file name.
        needed: Columns that must be there.

    Raises:
        SourceError: If there is no such file, or it lacks a column.
    """
    folder = log_files(path)[0].parent
    found = _feature_files(folder, name)
    if not found:
        raise SourceError(f"no {name}_*.csv in {folder}; put KuaiRand's file beside its logs")
    return read_columns(spark, found, needed=needed)


def read_columns(spark: SparkSession, files: list[Path], *, needed: tuple[str, ...]) -> DataFrame:
    """Read files one after the other by their own headers; `needed` and the readers' columns.

    Raises:
        SourceError: If a file lacks a column.
    """
    frames = []
    for file in files:
        frame = read_csv(spark, [file])
        require_columns(file, frame.columns, needed=needed)
        frames.append(frame.select(*needed, TEXT, BROKEN))
    return reduce(DataFrame.unionByName, frames)


def _feature_files(folder: Path, name: str) -> list[Path]:
    return matching_files(folder, rf"(derived_)?{name}{_CSV}")
