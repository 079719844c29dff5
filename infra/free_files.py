"""Search the files of a data home that are no table for users, and take the users out.

Logs, pages, results and databases name no user by design; an error message may still have carried
an id into one. Databases are rewritten cell by cell and compacted, records that ranklake goes on
reading are redacted, whatever can be made again is removed, and what cannot be changed without
breaking it is reported. Only an id that cannot be taken for a number or a short word is looked for.
"""

import gzip
import re
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import UserError
from pipelines.erasure import named_texts

REDACTED = "[erased]"
_SHORTEST_WORD, _SHORTEST_NUMBER = 6, 10
_PATIENCE_SECONDS = 60.0
_SQLITE = b"SQLite format 3\0"
_SQLITE_PARTS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """Say in which files users were named.

    Attributes:
        removed: Files that are gone.
        rewritten: Files that name them no more.
        left: Files that still do.
    """

    removed: tuple[Path, ...]
    rewritten: tuple[Path, ...]
    left: tuple[Path, ...]


def is_distinctive(user_id: str) -> bool:
    """Return whether an id found in free text can be taken for the user's."""
    lengths = [len(found.text) for found in named_texts(user_id)]
    has_letter = any(letter.isalpha() for letter in user_id)
    return min(lengths, default=0) >= (_SHORTEST_WORD if has_letter else _SHORTEST_NUMBER)


def clean_files(
    files: Collection[Path],
    user_ids: Collection[str],
    *,
    kept: Collection[Path] = (),
    redacted: Collection[Path] = (),
) -> Cleaned:
    """Take users out of files; databases are always rewritten.

    Args:
        files: Files to search.
        user_ids: The users; those whose id is not distinctive are not looked for.
        kept: Folders and files that must stay as they are.
        redacted: Folders and files of text in which the id alone is replaced.
    """
    texts = [t.text for user in user_ids if is_distinctive(user) for t in named_texts(user)]
    removed, rewritten, left = [], [], []
    pattern = _pattern(texts)
    for path in files if texts else ():
        if _is_sqlite(path):
            rewritten += [path] * _clean_database(path, pattern)
        elif not pattern.search(_content(path)):
            continue
        elif _is_in(path, kept):
            left.append(path)
        elif _is_in(path, redacted):
            text = path.read_bytes().decode("latin-1")
            path.write_bytes(pattern.sub(REDACTED, text).encode("latin-1"))
            rewritten.append(path)
        else:
            path.unlink()
            removed.append(path)
    return Cleaned(removed=tuple(removed), rewritten=tuple(rewritten), left=tuple(left))


def _pattern(texts: Collection[str]) -> re.Pattern[str]:
    """Match an id between characters that are neither letters, digits nor underscores.

    Contents are compared as UTF-8 bytes, each read as one character of Latin-1: a byte above 127
    counts as a letter's, as it is part of one.
    """
    written = [re.escape(text.encode().decode("latin-1")) for text in sorted(texts, key=len)[::-1]]
    inside = r"0-9A-Za-z_\x80-\xff"
    return re.compile(rf"(?<![{inside}])(?:{'|'.join(written)})(?![{inside}])")


def _content(path: Path) -> str:
    """Return the content of a file, unpacked where it is packed."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("latin-1")


def _is_in(path: Path, places: Collection[Path]) -> bool:
    return any(path == place or place in path.parents for place in places)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def is_part_of_database(path: Path) -> bool:
    """Return whether a file belongs to an SQLite database beside it."""
    return any(
        path.name.endswith(part) and path.with_name(path.name.removesuffix(part)).exists()
        for part in _SQLITE_PARTS
    )


def _clean_database(path: Path, pattern: re.Pattern[str]) -> bool:
    """Redact every cell of a database, and drop what deleted rows left in it.

    Raises:
        UserError: If another process is using it.
    """

    def redact(value: Any) -> Any:
        if isinstance(value, str):
            text = value.encode("utf-8", "surrogateescape").decode("latin-1")
            return pattern.sub(REDACTED, text).encode("latin-1").decode("utf-8", "surrogateescape")
        if isinstance(value, bytes):
            return pattern.sub(REDACTED, value.decode("latin-1")).encode("latin-1")
        return value

    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE_SECONDS)) as database:
            database.isolation_level = None
            database.create_function("redact", 1, redact, deterministic=True)
            changed = sum(_redact_column(database, *column) for column in _columns(database))
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        raise UserError(
            f"the database {path} cannot be rewritten ({error})",
            remedy="end make ui and every run, then repeat the command",
        ) from error
    return changed > 0


def _columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [
        (table, column[1])
        for (table,) in tables
        if not table.startswith("sqlite_")
        for column in database.execute(f"PRAGMA table_info({_quoted(table)})")
    ]


def _redact_column(database: sqlite3.Connection, table: str, column: str) -> int:
    name = _quoted(column)
    return database.execute(
        f"UPDATE {_quoted(table)} SET {name} = redact({name}) WHERE redact({name}) IS NOT {name}"
    ).rowcount


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
