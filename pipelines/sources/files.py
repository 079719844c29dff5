"""Raw files as frames of strings: nothing is inferred, nothing is dropped, nothing is parsed twice.

Every reader returns the files' own columns and three more: `TEXT`, the source's text of a row
(for rows that cannot be parsed); `BROKEN`, true where a row has too few or too many fields or is
not JSON; and `ROW_ID`, a hash of all that the row holds. Only local paths are read.
"""

import bz2
import csv
import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipelines.sources.canonical import row_id
from pipelines.sources.errors import SourceError

TEXT = "_source_text"
BROKEN = "_is_broken"
ROW_ID = "_row_id"
_CORRUPT = "_corrupt_record"
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}


def first_lines(spark: SparkSession, paths: Sequence[Path], *, limit: int) -> list[str]:
    """Return the first lines of text files.

    Raises:
        SourceError: If Spark cannot read them.
    """
    with readable(paths[0]):
        rows = spark.read.text([literal(path) for path in paths]).take(limit)
    return [row["value"] for row in rows]


def existing_path(path: str | None, *, source: str, expected: str) -> Path:
    """Return the path of a source's files.

    Args:
        path: What the user gave.
        source: Name of the source, for the message.
        expected: What DATA should name, for the message.

    Raises:
        SourceError: If the path is absent, missing or may not be read.
    """
    if not path:
        raise SourceError(f"source {source} needs its files: pass DATA=<{expected}>")
    found = Path(path)
    if not found.exists():
        raise SourceError(f"no such path: {found}; pass DATA=<{expected}>")
    if not os.access(found, os.R_OK):
        raise SourceError(f"cannot read {found}: permission denied; change its mode or owner")
    return found


def matching_files(root: Path, pattern: str) -> list[Path]:
    """Return the files below a folder whose whole name matches, each once: unpacked before packed.

    Args:
        root: The folder.
        pattern: Regular expression of a file's name.
    """
    files = sorted(file for file in root.rglob("*") if re.fullmatch(pattern, file.name))
    plain = {_unpacked_name(file): file for file in reversed(files) if file.is_file()}
    return sorted(plain.values())


def json_keys(lines: Sequence[str]) -> list[str]:
    """Return the keys of lines of JSON objects in order; a broken line has none."""
    keys: dict[str, None] = {}
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue  # a broken line is kept as such and rejected by cleaning
        keys |= dict.fromkeys(found) if isinstance(found, dict) else {}
    return list(keys)


def column(name: str) -> Column:
    """Return a column by its exact name, dots and spaces included."""
    return F.col(f"`{name.replace('`', '``')}`")


def read_csv(
    spark: SparkSession,
    paths: Sequence[Path],
    *,
    delimiter: str = ",",
    names: Sequence[str] = (),
    encoding: str = "UTF-8",
) -> DataFrame:
    """Read delimited files (plain, gz or bz2) as strings; empty fields are null.

    Args:
        spark: The session.
        paths: Files with the same columns.
        delimiter: Field separator, one or more characters.
        names: Column names of files without a header line, whose fields are not quoted.
        encoding: Of files without a header line; the others are in UTF-8.

    Raises:
        SourceError: If the first file is empty, is not text, or names a column twice.
    """
    columns = list(names) or csv_header(paths[0], delimiter=delimiter)
    layout = StructType([StructField(name, StringType()) for name in (*columns, _CORRUPT)])
    options = {
        "sep": delimiter,
        "header": not names,
        "encoding": encoding,
        "quote": "" if names else '"',
        "escape": '"',
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _CORRUPT,
        "columnPruning": False,  # else a row's field count depends on the query
    }
    raw = spark.read.schema(layout).options(**options).csv([literal(path) for path in paths])
    fields = [column(name) for name in columns]
    return raw.select(
        *fields,
        F.coalesce(F.col(_CORRUPT), F.to_json(F.struct(*fields))).alias(TEXT),
        F.col(_CORRUPT).isNotNull().alias(BROKEN),
        row_id(*fields, F.col(_CORRUPT)).alias(ROW_ID),
    )


def csv_header(path: Path, *, delimiter: str = ",") -> list[str]:
    """Return the column names in a delimited file's first line.

    Raises:
        SourceError: If the file is empty, is not text, or names a column twice.
    """
    line = _first_line(path)
    if not line.strip():
        raise SourceError(f"{path} is empty; it should start with a line of column names")
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path} names the column {repeated[0]!r} twice; rename one of them")
    return names


def read_jsonl(spark: SparkSession, paths: Sequence[Path], *, names: Sequence[str]) -> DataFrame:
    """Read the named fields of files of JSON objects, one per line, as strings.

    Args:
        spark: The session.
        paths: Files, plain or compressed.
        names: Fields to read; one that a line lacks is null, a nested one is JSON text.
    """
    layout = StructType([StructField(name, StringType()) for name in (*names, _CORRUPT)])
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT}
    lines = spark.read.text([literal(path) for path in paths]).where(F.length(F.trim("value")) > 0)
    parsed = lines.withColumn("row", F.from_json("value", layout, options))
    fields = [F.col("row")[name].alias(name) for name in names]
    broken = F.col("row").isNull() | F.col("row")[_CORRUPT].isNotNull()
    return parsed.select(
        *fields,
        F.col("value").alias(TEXT),
        broken.alias(BROKEN),
        row_id(F.col("value")).alias(ROW_ID),
    )


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turn Spark's failure to read a file into one line that names it.

    Raises:
        SourceError: If Spark fails inside the block.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        reason = _root_cause(str(error))
        message = f"cannot read {path}: {reason}; check that the file is whole and of its format"
        raise SourceError(message) from error


def literal(path: Path) -> str:
    """Return a path in which Spark sees no pattern, whatever characters it holds."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", str(path))


def _unpacked_name(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in _OPENERS else path


def _first_line(path: Path) -> str:
    opener = _OPENERS.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline=None) as lines:
            return lines.readline()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not a text file in UTF-8; convert or unpack it") from error
    except (OSError, EOFError) as error:
        raise SourceError(f"cannot read {path}: {error}; fetch the file again") from error


def _root_cause(text: str) -> str:
    causes = [line.strip() for line in text.splitlines() if line.strip().startswith("Caused by:")]
    line = causes[-1].removeprefix("Caused by:") if causes else text.strip().splitlines()[0]
    return line.strip()[:300].rstrip(".;")
