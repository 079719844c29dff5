"""The columns of each file of a source, told without Spark, and how they differ from those known.

The rule, of every source that reads files: a column that the source does not use is accepted and
recorded, whether it appears, goes or changes its type. One that it uses is required in every
file, which is else refused by name; but for optional ones of a mapped log, which are null where a
file lacks them. One of several types is read as text, and a row whose value cannot be read is
rejected with its text. Files without a line of names are told by the number of their columns: one
that has none of the published width is refused by name, and rows of another width are rejected.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipelines.sources.errors import SourceError
from pipelines.sources.files import csv_header
from pipelines.sources.parquet_files import parquet_columns

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}
_SAMPLE_LINES = 200
_JSON_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
_SHOWN = 20

Notes = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileKind:
    """Name the files of one kind, which a source reads as one table.

    Attributes:
        name: What they hold, as in "log".
        files: The files.
        file_format: csv, jsonl or parquet.
        delimiter: Field separator of CSV files.
    """

    name: str
    files: Sequence[Path]
    file_format: str
    delimiter: str = ","

    def columns(self) -> dict[str, dict[str, str]]:
        """Return each file's columns and their types, both named after the kind.

        Raises:
            SourceError: If a file cannot be read.
        """
        return {
            str(file): {
                f"{self.name}.{column}": kind
                for column, kind in file_columns(
                    file, file_format=self.file_format, delimiter=self.delimiter
                ).items()
            }
            for file in self.files
        }


def require_columns(
    place: Path, there: Iterable[str], *, needed: Iterable[str], layout: str = ""
) -> None:
    """Require columns of a file or folder.

    Args:
        place: The file or folder, for the message.
        there: Its columns; those of the readers, which begin with "_", are not shown.
        needed: Columns that it must have.
        layout: Where they are named, for the message, as in "the release of 2023".

    Raises:
        SourceError: Naming the first column that is missing.
    """
    shown = [name for name in there if not name.startswith("_")]
    for name in needed:
        if name not in shown:
            raise SourceError(
                f"{place} lacks the column {name!r}{layout and f' of {layout}'}; "
                f"its columns are: {', '.join(shown)}"
            )


def require_width(
    place: Path, lines: Sequence[str], *, names: Sequence[str], delimiter: str, source: str
) -> None:
    """Require that some line of a file without a line of names has as many columns as names.

    Args:
        place: The file, for the message.
        lines: Its first lines.
        names: The published columns.
        delimiter: Field separator.
        source: Who published the layout, for the message.

    Raises:
        SourceError: If every line has another number of columns.
    """
    widths = [len(line.split(delimiter)) for line in lines]
    if len(names) not in widths:
        raise SourceError(
            f"{place} has {max(widths, default=0)} columns, not the {len(names)} of {source} "
            f"({', '.join(names)}); fetch it again"
        )


def file_columns(file: Path, *, file_format: str, delimiter: str) -> dict[str, str]:
    """Return the names and types of a file's columns.

    Args:
        file: The file.
        file_format: csv (all text), jsonl (of its first lines) or parquet.
        delimiter: Field separator of a CSV file.

    Raises:
        SourceError: If the file cannot be read.
    """
    if file_format == "parquet":
        return parquet_columns(file)
    if file_format == "jsonl":
        return _json_columns(file)
    return dict.fromkeys(csv_header(file, delimiter=delimiter), "text")


def all_columns(by_file: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return every column of the files with its type, or with all of them joined by "or"."""
    kinds: dict[str, set[str]] = {}
    for columns in by_file.values():
        for name, kind in columns.items():
            kinds.setdefault(name, set()).update(kind.split(" or "))
    return {name: " or ".join(sorted(found)) for name, found in kinds.items()}


def source_columns(kinds: Iterable[FileKind]) -> dict[str, str]:
    """Return every column of a source's files, named after its kind, with its type."""
    return {name: text for kind in kinds for name, text in all_columns(kind.columns()).items()}


def source_notes(kinds: Iterable[FileKind], *, known: Mapping[str, str]) -> dict[str, str]:
    """Return what is to be recorded of the columns of a source's files, as `column_notes` does.

    Args:
        kinds: The files of the source.
        known: What `source_columns` said when the source was described; empty if nothing was
            recorded then.
    """
    found: Notes = {}
    for kind in kinds:
        own = {name: text for name, text in known.items() if name.startswith(f"{kind.name}.")}
        for title, names in _differences(kind.columns(), own, is_recorded=bool(known)).items():
            found.setdefault(title, []).extend(names)
    return {title: _listed(names) for title, names in found.items() if names}


def column_notes(
    by_file: Mapping[str, Mapping[str, str]], *, known: Mapping[str, str]
) -> dict[str, str]:
    """Return what is to be recorded of the columns: title to text; empty where nothing is.

    Args:
        by_file: File name to its columns.
        known: The columns when the source was described; empty if that was not recorded.
    """
    notes = _differences(by_file, known, is_recorded=bool(known))
    return {title: _listed(names) for title, names in notes.items() if names}


def _differences(
    by_file: Mapping[str, Mapping[str, str]], known: Mapping[str, str], *, is_recorded: bool
) -> Notes:
    found = all_columns(by_file)
    appeared = [f"{name} ({found[name]})" for name in found if is_recorded and name not in known]
    gone = [name for name in known if name not in found]
    changed = [
        f"{name} ({known[name]} -> {kind})"
        for name, kind in found.items()
        if name in known and known[name] != kind
    ]
    several = [f"{name} ({kind})" for name, kind in found.items() if " or " in kind]
    partial = [
        f"{name} (not in {lacking[0]}{_more(len(lacking) - 1)})"
        for name in found
        if (lacking := [file for file, columns in by_file.items() if name not in columns])
    ]
    return {
        "source columns that appeared": appeared,
        "source columns that are gone": gone,
        "source columns of another type than before": changed,
        "source columns of several types, read as text": several,
        "source columns that some files lack, null there": partial,
    }


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + _more(len(names) - _SHOWN)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _json_columns(file: Path) -> dict[str, str]:
    by_line: dict[str, dict[str, str]] = {}
    for number, line in enumerate(_first_lines(file)):
        try:
            value = json.loads(line)
        except ValueError:
            continue  # a broken line is rejected as a row, with its text
        if isinstance(value, dict):
            by_line[str(number)] = {
                name: _JSON_KINDS.get(type(each), "object")
                for name, each in value.items()
                if each is not None
            }
    return all_columns(by_line)


def _first_lines(file: Path) -> list[str]:
    opener = _OPENERS.get(file.suffix, open)
    try:
        with opener(file, "rt", encoding="utf-8", errors="replace") as lines:
            return list(islice(lines, _SAMPLE_LINES))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot read {file}: {error}; fetch the file again") from error
