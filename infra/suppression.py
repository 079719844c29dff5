"""The users who are never taken in again: a list of keyed hashes, and its key.

The list is a file of the data home and holds no id, only HMAC-SHA256 values; without the key, which
is a file outside of the data home, nobody can try ids against it. It also says which erasures have
not ended. A list whose key is missing or another one stops whatever would take rows in.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import UserError
from infra.settings import Settings
from pipelines.erasure import TEXT_DOMAIN, USER_DOMAIN, named_texts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_KEY_BYTES, _BLOCK_BYTES = 32, 64
_CHECK = "ranklake suppression key"
ASKED, ERASING, ERASED = "asked", "erasing", "erased"


@dataclass(frozen=True, kw_only=True, slots=True)
class Suppressed:
    """Describe one suppressed user.

    Attributes:
        user: Keyed hash of the id.
        texts: For each way in which free text writes the id, its pieces and its keyed hash.
        state: "asked" until something of the user was found, then "erasing", at the end "erased".
        since: Day of the request, ISO 8601.
    """

    user: str
    texts: tuple[tuple[int, str], ...]
    state: str
    since: str


class SuppressionList:
    """Hold the suppressed users of one data home's source."""

    def __init__(self, path: Path, *, key: bytes, users: Collection[Suppressed]) -> None:
        """Take what `open_list` has read.

        Args:
            path: The list's file.
            key: The key.
            users: The entries.
        """
        self._path = path
        self._key = key
        self._users = {entry.user: entry for entry in users}

    def __len__(self) -> int:
        """Return the number of suppressed users."""
        return len(self._users)

    @property
    def unfinished(self) -> int:
        """Return the number of users whose erasure has not ended."""
        return sum(entry.state != ERASED for entry in self._users.values())

    def state(self, user_id: str) -> str | None:
        """Return how far a user's erasure got, None for one who is not on the list."""
        found = self._users.get(self._mac(USER_DOMAIN, user_id))
        return None if found is None else found.state

    def add(self, user_ids: Collection[str], *, today: date) -> None:
        """Put users on the list, and on the disk, before anything else is done with them.

        A user who is on it and was erased is asked for anew.
        """
        for user_id in user_ids:
            known = self.state(user_id)
            if known is None:
                texts = tuple(
                    (t.pieces, self._mac(TEXT_DOMAIN, t.text)) for t in named_texts(user_id)
                )
                user = self._mac(USER_DOMAIN, user_id)
                entry = Suppressed(user=user, texts=texts, state=ASKED, since=today.isoformat())
                self._users[user] = entry
            elif known == ERASED:
                self._set(user_id, ASKED)
        self._save()

    def mark(self, user_ids: Collection[str], state: str) -> None:
        """Write down how far the erasure of users on the list got."""
        for user_id in user_ids:
            self._set(user_id, state)
        self._save()

    def marked(self, frame: "DataFrame") -> "DataFrame":
        """Return rows with `is_suppressed`, which says whose may not be taken in."""
        from pipelines.erasure import mark_suppressed

        spark = frame.sparkSession
        block = self._key.ljust(_BLOCK_BYTES, b"\0")
        inner, outer = (bytearray(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
        texts = sorted({text for entry in self._users.values() for text in entry.texts})
        pieces = sorted({number for number, _ in texts})
        keys = spark.createDataFrame(
            [(inner, outer, [mac for _, mac in texts], pieces)],
            "inner_key binary, outer_key binary, text_macs array<string>, text_pieces array<int>",
        )
        users = spark.createDataFrame([(mac,) for mac in sorted(self._users)], "user_mac string")
        return mark_suppressed(frame, keys=keys, users=users)

    def _set(self, user_id: str, state: str) -> None:
        user = self._mac(USER_DOMAIN, user_id)
        self._users[user] = replace(self._users[user], state=state)

    def _mac(self, domain: str, text: str) -> str:
        return _mac(self._key, f"{domain}{text}")

    def _save(self) -> None:
        record = {
            "key_check": _mac(self._key, _CHECK),
            "users": [asdict(self._users[user]) for user in sorted(self._users)],
        }
        _write_whole(self._path, json.dumps(record, indent=1))


def open_list(settings: Settings) -> SuppressionList:
    """Open the list to add to it; the key is made if there is neither a list nor a key.

    Raises:
        UserError: If the key is missing, is another one or lies in the data home, or the list
            cannot be read.
    """
    found = load_list(settings)
    if found is not None:
        return found
    file = settings.suppression_key_file
    _refuse_key_in_home(settings, file)
    key = _read_key(file) if file.exists() else _make_key(file)
    return SuppressionList(settings.suppressed_users_file, key=key, users=())


def load_list(settings: Settings) -> SuppressionList | None:
    """Return the list, or None if nobody is suppressed; then no key is looked for.

    Raises:
        UserError: If the key is missing or another one, or the list cannot be read.
    """
    path = settings.suppressed_users_file
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        users = [_entry(fields) for fields in record["users"]]
        check = str(record["key_check"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the list of suppressed users {path} cannot be read ({error})",
            remedy="put it back from a backup: without it, users who were forgotten come back",
        ) from error
    if not users:
        return None
    file = settings.suppression_key_file
    remedy = "put the key back, or set RANKLAKE_SUPPRESSION_KEY to its file"
    if not file.exists():
        raise UserError(
            f"{len(users)} users are suppressed in {path}, and their key {file} is missing",
            remedy=remedy,
        )
    key = _read_key(file)
    if not hmac.compare_digest(_mac(key, _CHECK), check):
        raise UserError(
            f"{file} is not the key that the users in {path} were suppressed with", remedy=remedy
        )
    return SuppressionList(path, key=key, users=users)


def _entry(fields: dict[str, Any]) -> Suppressed:
    texts = tuple((int(pieces), str(mac)) for pieces, mac in fields.pop("texts"))
    return Suppressed(texts=texts, **fields)


def _mac(key: bytes, message: str) -> str:
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def _refuse_key_in_home(settings: Settings, file: Path) -> None:
    if file.resolve().is_relative_to(settings.home.resolve()):
        raise UserError(
            f"the key of the suppressed users must not lie in the data home, and {file} does",
            remedy="set RANKLAKE_SUPPRESSION_KEY to a file elsewhere",
        )


def _read_key(file: Path) -> bytes:
    try:
        key = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise UserError(
            f"the key of the suppressed users {file} cannot be read ({error})",
            remedy="put it back from a backup",
        ) from error
    if len(key) != _KEY_BYTES:
        raise UserError(
            f"the key of the suppressed users {file} has {len(key)} bytes instead of {_KEY_BYTES}",
            remedy="put it back from a backup",
        )
    return key


def _make_key(file: Path) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = secrets.token_bytes(_KEY_BYTES)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(f"{key.hex()}\n")
        handle.flush()
        os.fsync(handle.fileno())
    return key


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)
