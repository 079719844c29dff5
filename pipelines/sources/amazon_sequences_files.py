"""Files of the 2014 5-core sequences: who reviewed what in order, with gaps, and what items are."""

from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import FileKind, require_columns
from pipelines.sources.files import existing_path, matching_files, read_csv, readable

_EXPECTED = "folder with <category>_timedelta.txt and <category>_item2attributes.json"
_ENDING = "_timedelta.txt"
_TEXT_COLUMNS = ("item_id", "idgenrec_keywords")


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceFiles:
    """Name the files of one category; without `texts` items have attributes alone."""

    sequences: Path
    attributes: Path
    texts: Path | None


def sequence_files(path: str | None) -> SequenceFiles:
    """Find the files of the one category below a folder, or of a file of sequences.

    Raises:
        SourceError: If the path is missing, holds no or several categories, or no attributes.
    """
    root = existing_path(path, source="amazon_sequences", expected=_EXPECTED)
    found = [root] if root.is_file() else matching_files(root, rf".+{_ENDING}")
    if not found or not found[0].name.endswith(_ENDING):
        raise SourceError(f"no *{_ENDING} in {root}; pass DATA=<{_EXPECTED}>")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceError(f"{root} holds several categories: {names}; pass DATA=<one of them>")
    category = found[0].name.removesuffix(_ENDING)
    attributes = found[0].with_name(f"{category}_item2attributes.json")
    if not attributes.exists():
        raise SourceError(f"no {attributes.name} beside {found[0]}; fetch the items' attributes")
    texts = matching_files(found[0].parent, rf"(derived_)?{category}_id_asin_text\.tsv")
    return SequenceFiles(
        sequences=found[0], attributes=attributes, texts=texts[0] if texts else None
    )


def file_kinds(path: str | None) -> list[FileKind]:
    """Return the one file that begins with a line of names, the texts, where it is there.

    Raises:
        SourceError: As `sequence_files`.
    """
    texts = sequence_files(path).texts
    if texts is None:
        return []
    return [FileKind(name="texts", files=[texts], file_format="csv", delimiter="\t")]


def read_attributes(spark: SparkSession, file: Path) -> DataFrame:
    """Read a JSON object of item to list of numbers: item, attributes (array of strings).

    Raises:
        SourceError: If the file is no such object.
    """
    with readable(file):
        whole = spark.read.text(str(file), wholetext=True)
        parsed = whole.select(F.from_json("value", "map<string,array<string>>").alias("items"))
        known = parsed.where(F.col("items").isNotNull())
        if known.isEmpty():
            raise SourceError(f"{file} is no JSON object of item to attributes; fetch it again")
    return known.select(F.explode("items").alias("item", "attributes"))


def read_texts(spark: SparkSession, file: Path) -> DataFrame:
    """Read the items' texts: item, text.

    Raises:
        SourceError: If the file lacks a column.
    """
    frame = read_csv(spark, [file], delimiter="\t")
    require_columns(file, frame.columns, needed=_TEXT_COLUMNS)
    return frame.select(*(F.col(name) for name in _TEXT_COLUMNS)).toDF("item", "text")
