"""The days that somebody looked at and accepted as they are: a holiday, an outage, a launch.

An accepted day is not compared with the days before it, and no later day is compared with it.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from infra.errors import UserError

_FILE = "accepted_days.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedDay:
    """Describe one accepted day.

    Attributes:
        day: The local day, ISO 8601.
        why: Why it may stand, in the words of who accepted it.
        when: When it was accepted, UTC, ISO 8601.
    """

    day: str
    why: str
    when: str


def accepted_days(folder: Path) -> tuple[AcceptedDay, ...]:
    """Return the accepted days of a data home's source, oldest first.

    Args:
        folder: The folder of the quality gate.

    Raises:
        UserError: If the record cannot be read.
    """
    path = folder / _FILE
    if not path.exists():
        return ()
    try:
        return tuple(AcceptedDay(**entry) for entry in json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the record of accepted days {path} cannot be read: {error}",
            remedy="correct the file or remove it",
        ) from error


def accept_day(folder: Path, *, day: str, why: str) -> AcceptedDay:
    """Record a day as accepted; a second record of a day replaces the first.

    Args:
        folder: The folder of the quality gate.
        day: The local day, ISO 8601.
        why: Why it may stand.

    Raises:
        UserError: If the day is no date or no reason is given.
    """
    try:
        named = date.fromisoformat(day.strip()).isoformat()
    except ValueError:
        raise UserError(f"{day!r} is not a day", remedy="write it as YYYY-MM-DD") from None
    if not why.strip():
        raise UserError(f"no reason is given for {named}", remedy='add WHY="..."')
    entry = AcceptedDay(
        day=named, why=why.strip(), when=datetime.now(UTC).isoformat(timespec="seconds")
    )
    others = [other for other in accepted_days(folder) if other.day != named]
    kept = sorted((*others, entry), key=lambda other: other.day)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{_FILE}.draft"
    draft.write_text(json.dumps([asdict(other) for other in kept], indent=1))
    draft.replace(folder / _FILE)
    return entry
