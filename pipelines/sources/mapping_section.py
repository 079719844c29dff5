"""Reads one table of a mapping file: every access checks the type and names the place."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.sources.errors import SourceError


def closest(name: str, known: Sequence[str]) -> str:
    """Return a hint with the most similar known name, or nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


class Section:
    """Hold one table of a mapping file; every method raises SourceError for a wrong value."""

    def __init__(self, file: Path, name: str, values: object, keys: tuple[str, ...] | None) -> None:
        """Take a table.

        Args:
            file: The mapping file, for messages.
            name: Dotted name of the table, empty for the document.
            values: What the document holds at that place.
            keys: Keys the table may have, None for any.

        Raises:
            SourceError: If it is no table or holds an unknown key.
        """
        self.file, self.name = file, name
        if not isinstance(values, dict):
            raise self.wrong("", f"must be a table, not {values!r}")
        self.values: dict[str, Any] = values
        for key in values:
            if keys is not None and key not in keys:
                place = f" in [{name}]" if name else ""
                raise SourceError(
                    f"mapping {file}: unknown key {key!r}{place}{closest(key, keys)}; "
                    f"known keys: {', '.join(keys)}"
                )

    def wrong(self, key: str, problem: str) -> SourceError:
        """Return an error that names a key of this table."""
        place = ".".join(part for part in (self.name, key) if part)
        return SourceError(f"mapping {self.file}: {place} {problem}")

    def section(self, key: str, keys: tuple[str, ...] | None) -> "Section":
        """Return a table of this table, empty where it is absent."""
        name = ".".join(part for part in (self.name, key) if part)
        return Section(self.file, name, self.values.get(key, {}), keys)

    def text(self, key: str, default: str | None = None) -> str | None:
        """Return a string that is not empty, or the default."""
        value = self.values.get(key, default)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.wrong(key, f"must be a string, not {value!r}")
        return value

    def required(self, key: str, meaning: str) -> str:
        """Return a string that must be there; `meaning` ends the sentence "it ..."."""
        value = self.text(key)
        if value is None:
            raise self.wrong(key, f"is missing; it {meaning}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings, or a single one, without repetitions."""
        value = self.values.get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise self.wrong(key, f"must be a list of strings, not {value!r}")
        return tuple(dict.fromkeys(listed))

    def names(self, key: str) -> dict[str, str]:
        """Return a table of strings under free keys."""
        values = self.section(key, None)
        return {name: values.required(name, "names a value") for name in values.values}

    def seconds(self, key: str, default: int) -> int:
        """Return a whole number that is not negative, or the default."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, f"must be a whole number from 0, not {value!r}")
        return value

    def choice(self, key: str, among: tuple[str, ...], default: str | None = None) -> str | None:
        """Return one of a few strings, or the default."""
        value = self.text(key, default)
        if value is not None and value not in among:
            raise self.wrong(key, f"must be one of {', '.join(among)}, not {value!r}")
        return value

    def zone(self, key: str, default: str) -> str:
        """Return an IANA time zone, or the default."""
        value = self.text(key, default) or default
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            problem = f"is {value!r}, which is no IANA time zone; write one like Europe/Berlin"
            raise self.wrong(key, problem) from None
