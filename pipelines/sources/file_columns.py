"""The columns of each file of a log, told without Spark, and how they differ from those known.

The rule: a column that no mapping names is accepted and recorded, whether it appears, goes or
changes its type. A mapped one that some files lack is null there if it is optional; without it
the log is refused if it says who did what and when. One of several types is read as text, and a
row whose value cannot be read is rejected with its text.
"""

import bz2
import gzip
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from pipelines.sources.files import csv_header
from pipelines.sources.parquet_files import parquet_columns

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}
_SAMPLE_LINES = 200
_JSON_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
_SHOWN = 20


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


def column_notes(
    by_file: Mapping[str, Mapping[str, str]], *, known: Mapping[str, str]
) -> dict[str, str]:
    """Return what is to be recorded of the columns: title to text; empty where nothing is.

    Args:
        by_file: File name to its columns.
        known: The columns when the source was described; empty if that was not recorded.
    """
    found = all_columns(by_file)
    appeared = [f"{name} ({found[name]})" for name in found if known and name not in known]
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
    notes = {
        "source columns that appeared": appeared,
        "source columns that are gone": gone,
        "source columns of another type than before": changed,
        "source columns of several types, read as text": several,
        "source columns that some files lack, null there": partial,
    }
    return {title: _listed(names) for title, names in notes.items() if names}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + _more(len(names) - _SHOWN)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _json_columns(file: Path) -> dict[str, str]:
    opener = _OPENERS.get(file.suffix, open)
    by_line: dict[str, dict[str, str]] = {}
    with opener(file, "rt", encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(islice(lines, _SAMPLE_LINES)):
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
