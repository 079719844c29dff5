"""How the text of an environment variable becomes a value.

`env` holds the variables that are set, without blanks around them; which there are is said in
`infra/settings.py`, which alone reads them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from infra.errors import UserError

Number = TypeVar("Number", int, float)


def absolute(text: str) -> str:
    """Return a path from the root, the home folder's sign replaced."""
    return os.path.abspath(Path(text).expanduser())  # noqa: PTH100 - links are kept as written


def path_of(env: Mapping[str, str], name: str) -> str | None:
    """Return a variable's path from the root, None if it is not set."""
    return absolute(env[name]) if name in env else None


def folder_or_list(text: str | None) -> str | None:
    """Return a folder from the root, or a list of files (with colons between them) as it is."""
    return text if text is None or ":" in text else absolute(text)


def number(env: Mapping[str, str], name: str, kind: type[Number]) -> Number | None:
    """Return a variable's number, None if it is not set.

    Raises:
        UserError: If it is none of its kind.
    """
    try:
        return kind(env[name]) if name in env else None
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{name} must be {what}, not {env[name]!r}") from None
