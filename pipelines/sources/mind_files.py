"""MIND's files: behaviors.tsv beside news.tsv, in folders or in the published zips."""

from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pipelines.sources.archives import unzipped
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import require_width
from pipelines.sources.files import existing_path, first_lines, read_csv

BEHAVIOURS, NEWS = "behaviors.tsv", "news.tsv"
_EXPECTED = "folder or zip of MIND's training or development set"
_SAMPLE_LINES = 100
_BEHAVIOUR_NAMES = ("impression", "user", "time", "history", "shown")
_NEWS_NAMES = (
    "news", "category", "subcategory", "title", "abstract", "url", "title_entities",
    "abstract_entities",
)  # fmt: skip


def set_folders(path: str | None) -> list[Path]:
    """Return the folders that hold a set, at any depth; zips only where there are no folders.

    Raises:
        SourceError: If the path is missing, holds no set, or a set lacks its news.
    """
    root = existing_path(path, source="mind", expected=_EXPECTED)
    zips = [root] if root.is_file() else sorted(root.glob("MIND*.zip"))
    folders = [] if root.is_file() else sorted(file.parent for file in root.rglob(BEHAVIOURS))
    if not folders:
        opened = [unzipped(one, names=(BEHAVIOURS, NEWS), source="mind") for one in zips]
        folders = [folder for folder in opened if (folder / BEHAVIOURS).exists()]
    if not folders:
        raise SourceError(f"no {BEHAVIOURS} in {root}; pass DATA=<{_EXPECTED}>")
    for folder in folders:
        if not (folder / NEWS).exists():
            raise SourceError(f"no {NEWS} in {folder}; put MIND's file beside {BEHAVIOURS}")
    return folders


def read_behaviours(spark: SparkSession, folders: list[Path]) -> DataFrame:
    """Read the requests: impression, user, time, history, shown, and the reader's columns.

    Raises:
        SourceError: If a file has other columns, or tells nothing about clicks (the test set).
    """
    for folder in folders:
        _check(spark, folder / BEHAVIOURS)
    files = [folder / BEHAVIOURS for folder in folders]
    return read_csv(spark, files, delimiter="\t", names=_BEHAVIOUR_NAMES)


def read_news(spark: SparkSession, folders: list[Path]) -> DataFrame:
    """Read the articles of all sets; one that is in several of them comes several times.

    Raises:
        SourceError: If a file has other columns.
    """
    frames = []
    for folder in folders:
        file = folder / NEWS
        lines = first_lines(spark, [file], limit=_SAMPLE_LINES)
        require_width(file, lines, names=_NEWS_NAMES, delimiter="\t", source="MIND")
        frames.append(read_csv(spark, [file], delimiter="\t", names=_NEWS_NAMES))
    return reduce(DataFrame.unionByName, frames)


def _check(spark: SparkSession, file: Path) -> None:
    lines = first_lines(spark, [file], limit=_SAMPLE_LINES)
    if not lines:
        raise SourceError(f"{file} has no rows; fetch it again")
    require_width(file, lines, names=_BEHAVIOUR_NAMES, delimiter="\t", source="MIND")
    shown = " ".join(line.split("\t")[-1] for line in lines)
    if shown.strip() and "-" not in shown:
        raise SourceError(
            f"{file} does not tell what was clicked: it is of the test set; move its folder out "
            "of DATA and use the training and development sets"
        )
