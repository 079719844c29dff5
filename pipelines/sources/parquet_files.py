"""Parquet files whose columns differ from file to file, as one frame.

Spark takes the columns of a folder from one of its files and fails in the middle of a scan where
another file has a column in another type. Here the footers are compared first: files of the same
columns are read together, a column that some lack is null there, and one of several types is
read as text, so that what cannot be understood is rejected row by row later.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType

from pipelines.sources.canonical import row_id
from pipelines.sources.errors import SourceError
from pipelines.sources.files import BROKEN, ROW_ID, TEXT, column, literal, readable


def parquet_columns(file: Path) -> dict[str, str]:
    """Return the names and Arrow types in a file's footer.

    Raises:
        SourceError: If it is not Parquet.
    """
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".;")
        message = f"cannot read {file}: {reason}; check that the file is whole and of its format"
        raise SourceError(message) from error
    return {field.name: str(field.type) for field in schema}


def alike_files(path: Path, files: Sequence[Path] = ()) -> list[list[Path]]:
    """Return the files at a path in groups of the same columns and types.

    Args:
        path: As of `read_parquet`.
        files: As of `read_parquet`.

    Raises:
        SourceError: If there are none, or one is not Parquet.
    """
    alike: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    found = files or parquet_files(path)
    if not found:
        raise SourceError(f"no *.parquet in {path}; fetch it again")
    for file in found:
        alike.setdefault(tuple(parquet_columns(file).items()), []).append(file)
    return list(alike.values())


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files of a folder, or the one that the path names."""
    return [path] if path.is_file() else sorted(path.rglob("*.parquet"))


def read_parquet(spark: SparkSession, path: Path, files: Sequence[Path] = ()) -> DataFrame:
    """Read Parquet files with the columns of all of them.

    Args:
        spark: The session.
        path: The file, or the folder whose `name=value` sub-folders are columns too.
        files: The data files at that path; by default the file itself, or all of the folder
            that end in .parquet.

    Returns:
        The files' columns with `TEXT`, `BROKEN` and `ROW_ID`; in their own types, or as text
        where files disagree.

    Raises:
        SourceError: If one is not Parquet.
    """
    frames = [_frame(spark, path, same) for same in alike_files(path, files)]
    kinds: dict[str, set[DataType]] = {}
    for frame in frames:
        for field in frame.schema.fields:
            kinds.setdefault(field.name, set()).add(field.dataType)
    mixed = {name for name, found in kinds.items() if len(found) > 1}
    agreeing = [_as_text(frame, mixed) for frame in frames]
    return reduce(lambda one, two: one.unionByName(two, allowMissingColumns=True), agreeing)


def _frame(spark: SparkSession, path: Path, files: Sequence[Path]) -> DataFrame:
    with readable(path):
        reader = spark.read.option("basePath", str(path)) if path.is_dir() else spark.read
        frame = reader.parquet(*(literal(file) for file in files))
    fields = [column(name) for name in frame.columns]
    return frame.select(
        *fields,
        F.to_json(F.struct(*fields)).alias(TEXT),
        F.lit(False).alias(BROKEN),
        row_id(*fields).alias(ROW_ID),
    )


def _as_text(frame: DataFrame, names: set[str]) -> DataFrame:
    texts = {
        field.name: _text(field.name, field.dataType)
        for field in frame.schema.fields
        if field.name in names
    }
    return frame.withColumns(texts) if texts else frame


def _text(name: str, kind: DataType) -> Column:
    if isinstance(kind, ArrayType | MapType | StructType):
        return F.to_json(column(name))
    return column(name).cast("string")
