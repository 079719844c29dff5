"""KuaiRand's files: the published names, found at any depth below a folder."""

import re
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pipelines.sources.errors import SourceError
from pipelines.sources.files import existing_path, matching_files, read_csv

HISTORY = "user_sequences.parquet"
USERS = "user_features"
VIDEOS = "video_features_basic"
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
    found = matching_files(folder, rf"(derived_)?{name}{_CSV}")
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
        *there, text, broken, _ = frame.columns
        missing = [name for name in needed if name not in there]
        if missing:
            columns = ", ".join(there)
            raise SourceError(f"{file} lacks the column {missing[0]!r}; its columns are: {columns}")
        frames.append(frame.select(*needed, text, broken))
    return reduce(DataFrame.unionByName, frames)
