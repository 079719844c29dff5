"""MovieLens' files: the layouts in which the sets were published, and the zip around them."""

from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.archives import unzipped
from pipelines.sources.errors import SourceError
from pipelines.sources.file_columns import FileKind, require_columns, require_width
from pipelines.sources.files import BROKEN, TEXT, existing_path, first_lines, read_csv

_SAMPLE_LINES = 100
_EXPECTED = "ml-*.zip or its unpacked folder"
_RATING_NAMES = ("user", "movie", "rating", "timestamp")
_MOVIE_NAMES = ("movie", "title", "genres")
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
    "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance",
    "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """Describe one published file: its name, separator and the columns to read it with."""

    name: str
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    header: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Describe one way in which the sets were published; `users` is absent in most."""

    ratings: File
    movies: File
    users: File | None = None


_LAYOUTS = (
    Layout(
        ratings=File(
            name="ratings.csv",
            columns=_RATING_NAMES,
            header=("userId", "movieId", "rating", "timestamp"),
        ),
        movies=File(
            name="movies.csv",
            columns=_MOVIE_NAMES,
            header=("movieId", "title", "genres"),
        ),
    ),
    Layout(
        ratings=File(name="ratings.dat", delimiter="::", columns=_RATING_NAMES),
        movies=File(name="movies.dat", delimiter="::", columns=_MOVIE_NAMES),
        users=File(
            name="users.dat",
            delimiter="::",
            columns=("user", "gender", "age", "occupation", "zip"),
        ),
    ),
    Layout(
        ratings=File(name="u.data", delimiter="\t", columns=_RATING_NAMES),
        movies=File(
            name="u.item",
            delimiter="|",
            columns=(
                "movie",
                "title",
                "released",
                "video_released",
                "address",
                *GENRES_100K,
            ),
        ),
        users=File(
            name="u.user",
            delimiter="|",
            columns=("user", "age", "gender", "occupation", "zip"),
        ),
    ),
)
_KNOWN_FILES = {
    file.name
    for layout in _LAYOUTS
    for file in (layout.ratings, layout.movies, layout.users)
    if file
}


def file_kinds(path: str | None) -> list[FileKind]:
    """Return the files that begin with a line of names; none in the old layouts.

    Raises:
        SourceError: If the path is missing, or holds no set.
    """
    folder, layout = unpacked(path)
    named = {"ratings": layout.ratings, "movies": layout.movies}
    return [
        FileKind(name=name, files=[folder / file.name], file_format="csv")
        for name, file in named.items()
        if file.header
    ]


def read_published(spark: SparkSession, folder: Path, file: File) -> DataFrame:
    """Read a published file as strings under the names of `File.columns`.

    Raises:
        SourceError: If the file is empty, lacks a column, or has others and no line of names.
    """
    path = folder / file.name
    if not file.header:
        lines = first_lines(spark, [path], limit=_SAMPLE_LINES)
        require_width(path, lines, names=file.columns, delimiter=file.delimiter, source="MovieLens")
        return read_csv(
            spark,
            [path],
            delimiter=file.delimiter,
            names=file.columns,
            encoding=_encoding(folder, file),
        )
    frame = read_csv(spark, [path])
    require_columns(path, frame.columns, needed=file.header)
    renamed = [F.col(old).alias(new) for old, new in zip(file.header, file.columns, strict=True)]
    return frame.select(*renamed, TEXT, BROKEN)


def _encoding(folder: Path, file: File) -> str:
    """Return Latin-1, as of ml-100k and ml-1m; ml-10M, which has no users, is in UTF-8."""
    is_10m = file.delimiter == "::" and not (folder / "users.dat").exists()
    return "UTF-8" if is_10m else "ISO-8859-1"


def unpacked(path: str | None) -> tuple[Path, Layout]:
    """Return the folder that holds a set's files, unpacking a zip once, and their layout.

    Raises:
        SourceError: If the path is missing, holds no set, or its zip is broken.
    """
    root = existing_path(path, source="movielens", expected=_EXPECTED)
    zips = [root] if root.is_file() else sorted(root.glob("ml-*.zip"))
    found = None if root.is_file() else _find(root)
    if found is None and len(zips) == 1:
        found = _find(unzipped(zips[0], names=_KNOWN_FILES, source="movielens"))
    if found is None:
        wanted = "; ".join(f"{one.ratings.name} and {one.movies.name}" for one in _LAYOUTS)
        raise SourceError(f"no MovieLens set in {root}: need {wanted}; pass DATA=<{_EXPECTED}>")
    return found


def _find(folder: Path) -> tuple[Path, Layout] | None:
    for layout in _LAYOUTS:
        for ratings in sorted(folder.rglob(layout.ratings.name)):
            if (ratings.parent / layout.movies.name).exists():
                return ratings.parent, layout
    return None
