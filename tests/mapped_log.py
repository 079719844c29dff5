"""A small labelled log of a mapped source, as tests write it, and the platform that reads it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.platform import Platform

_LABELLED = """
log = "labelled"
primary_action = "click"
[columns]
user = "user"
item = "item"
{columns}
[time]
column = "time"
format = "iso"
[action.columns]
click = "click"
[item]
file = "items.csv"
id = "item"
text = ["title"]
{tables}
"""


def write_mapping(folder: Path, *, columns: str = "", tables: str = "") -> None:
    """Write `mapping.toml`: a row is an impression with its click, items are songs of a file.

    Args:
        folder: Where to.
        columns: Further lines of [columns].
        tables: Further tables.
    """
    text = _LABELLED.format(columns=columns, tables=tables)
    (folder / "mapping.toml").write_text(text)


def write_rows(
    path: Path, rows: Sequence[Mapping[str, object]], *, names: Sequence[str] = ()
) -> None:
    """Write rows as CSV under their names; without a row the names alone."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(names or rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_songs(folder: Path, number: int) -> None:
    """Write `items.csv`, i0 and so on."""
    songs = [{"item": f"i{item}", "title": f"song {item}"} for item in range(number)]
    write_rows(folder / "items.csv", songs)


def platform_of(folder: Path, *, log: str = "log", home: str = "home", **more: str) -> Platform:
    """Return a platform over a log and the mapping in a folder.

    Args:
        folder: What holds both.
        log: Name of the log, a file or a folder.
        home: Name of the data home.
        more: Further RANKLAKE_* variables.
    """
    return Platform(
        variables={
            "RANKLAKE_HOME": str(folder / home),
            "RANKLAKE_PROFILE": "test",
            "RANKLAKE_SOURCE": "mapped",
            "RANKLAKE_DATA_PATH": str(folder / log),
            "RANKLAKE_MAPPING": str(folder / "mapping.toml"),
            **more,
        }
    )
