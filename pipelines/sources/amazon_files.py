"""Amazon reviews' files: the layouts of 2018 and 2023, and the metadata beside the reviews."""

import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import FileKind, require_columns
from pipelines.sources.files import (
    BROKEN,
    TEXT,
    existing_path,
    first_lines,
    json_keys,
    matching_files,
    read_jsonl,
)

EXPECTED = "folder with <category>.jsonl and meta_<category>.jsonl, plain or .gz"
_JSON = r"\.jsonl?(\.gz|\.bz2)?"
_REVIEWS = rf"(?!meta_).*{_JSON}"
_CORE = r"_\d+(core)?$"  # 5-core files share the metadata of the whole category
_SAMPLE_LINES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Describe one release: the keys of its reviews and of its metadata.

    Attributes:
        release: The year.
        review: Keys of user, item, rating and time of a review, in this order.
        unit: Unit of the time.
        item: Keys of item, title, brand, list of categories and department, in this order.
    """

    release: str
    review: tuple[str, str, str, str]
    unit: str
    item: tuple[str, str, str, str, str]

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return f"the release of {self.release}"


LAYOUTS = (
    Layout(
        release="2023",
        review=("user_id", "parent_asin", "rating", "timestamp"),
        unit="ms",
        item=("parent_asin", "title", "store", "categories", "main_category"),
    ),
    Layout(
        release="2018",
        review=("reviewerID", "asin", "overall", "unixReviewTime"),
        unit="s",
        item=("asin", "title", "brand", "category", "main_cat"),
    ),
)
REVIEW_NAMES = ("user", "item", "rating", "time")
ITEM_NAMES = ("item", "title", "brand", "categories", "department")


def review_files(path: str | None) -> list[Path]:
    """Return the files of reviews below a folder, or the one file that the path names.

    Raises:
        SourceError: If the path is missing or holds no reviews.
    """
    root = existing_path(path, source="amazon", expected=EXPECTED)
    found = [root] if root.is_file() else matching_files(root, _REVIEWS)
    if not found:
        raise SourceError(
            f"no reviews (*.jsonl or *.json, plain or .gz) in {root}; DATA=<{EXPECTED}>"
        )
    return found


def file_kinds(path: str | None) -> list[FileKind]:
    """Return the files of reviews and those of metadata.

    Raises:
        SourceError: If the path is missing, or holds no reviews.
    """
    files = review_files(path)
    beside = [found for file in files for found in _metadata_files(file)[:1]]
    return [
        FileKind(name="reviews", files=files, file_format="jsonl"),
        FileKind(name="metadata", files=tuple(dict.fromkeys(beside)), file_format="jsonl"),
    ]


def layout_of(spark: SparkSession, files: list[Path]) -> Layout:
    """Tell the release of files of reviews by the keys of their first lines.

    Raises:
        SourceError: If a file is empty, is of neither release, or the releases differ.
    """
    layouts = {file: _layout_of(spark, file) for file in files}
    releases = {layout.release for layout in layouts.values()}
    if len(releases) > 1:
        named = ", ".join(f"{file.name} ({layout.release})" for file, layout in layouts.items())
        raise SourceError(f"reviews of two releases: {named}; keep each in a folder of its own")
    return layouts[files[0]]


def read_reviews(spark: SparkSession, files: list[Path], layout: Layout) -> DataFrame:
    """Read reviews as strings: the columns `REVIEW_NAMES`, `TEXT` and `BROKEN`."""
    rows = read_jsonl(spark, files, names=layout.review)
    named = [F.col(old).alias(new) for old, new in zip(layout.review, REVIEW_NAMES, strict=True)]
    return rows.select(*named, TEXT, BROKEN)


def read_metadata(spark: SparkSession, files: list[Path], layout: Layout) -> DataFrame:
    """Read the metadata beside files of reviews as strings: the columns `ITEM_NAMES`.

    Raises:
        SourceError: If a file of metadata is missing, or lacks the item or its title.
    """
    frames = []
    for file in files:
        metadata = _metadata_of(file)
        keys = json_keys(first_lines(spark, [metadata], limit=_SAMPLE_LINES))
        require_columns(metadata, keys, needed=layout.item[:2], layout=layout.name)
        rows = read_jsonl(spark, [metadata], names=layout.item)
        named = [F.col(old).alias(new) for old, new in zip(layout.item, ITEM_NAMES, strict=True)]
        frames.append(rows.select(*named))
    return reduce(DataFrame.unionByName, frames)


def _layout_of(spark: SparkSession, file: Path) -> Layout:
    lines = first_lines(spark, [file], limit=_SAMPLE_LINES)
    if not lines:
        raise SourceError(f"{file} has no rows; fetch it again")
    keys = json_keys(lines)
    if not keys:
        raise SourceError(f"{file} holds no JSON objects, one per line; pass DATA=<{EXPECTED}>")
    lacks = {layout: [name for name in layout.review if name not in keys] for layout in LAYOUTS}
    nearest = min(lacks, key=lambda layout: len(lacks[layout]))
    require_columns(file, keys, needed=nearest.review, layout=nearest.name)
    return nearest


def _metadata_of(reviews: Path) -> Path:
    found = _metadata_files(reviews)
    if not found:
        shown = min(_categories(reviews), key=len)
        raise SourceError(
            f"no meta_{shown}.jsonl or .json (plain or .gz) beside {reviews}; fetch the metadata"
        )
    return found[0]


def _metadata_files(reviews: Path) -> list[Path]:
    wanted = "|".join(re.escape(name) for name in sorted(_categories(reviews)))
    return matching_files(reviews.parent, rf"meta_({wanted}){_JSON}")


def _categories(reviews: Path) -> set[str]:
    category = re.sub(_JSON + "$", "", reviews.name)
    return {category, re.sub(_CORE, "", category)}
