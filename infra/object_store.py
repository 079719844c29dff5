"""Talk to an object store without a JVM, and say in one line what it does not allow.

The writes here are conditional: an object is made only if it is not there, or replaced only if it
is still the one that was read. The leases rest on that, so a store is asked once per process
whether it keeps to it; some that speak S3 do not.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

from infra.errors import UserError
from infra.lake_location import StoreFolder

LEASES = "_locks"
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_CLIENT = {"connect_timeout": "10s", "timeout": "120s"}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REMEDY = (
    "check the name, that the store answers there, and the variables of its credentials (for s3a "
    "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """Hold an object as it was read.

    Attributes:
        content: Its bytes.
        tag: What a write that replaces this very object must name.
        modified_ns: When it was written, by the store's clock, in whole seconds.
    """

    content: bytes
    tag: dict[str, str]
    modified_ns: int


def client(folder: StoreFolder) -> Any:
    """Return a client whose paths are relative to a folder."""
    return _client(folder.url, folder.options)


@lru_cache(maxsize=256)
def _client(url: str, options: tuple[tuple[str, str], ...]) -> Any:
    from obstore.store import from_url

    plain: Any = dict(options)
    allows_http = plain.get("aws_endpoint_url", "").startswith("http://")
    connection: Any = {**_CLIENT, "allow_http": allows_http}
    retries: Any = _RETRIES
    return from_url(url, config=plain, client_options=connection, retry_config=retries)


def read_object(folder: StoreFolder, path: str) -> Stored | None:
    """Return an object, or None if there is none."""
    import obstore

    with explained(folder):
        try:
            found = obstore.get(client(folder), path)
        except FileNotFoundError:
            return None
        meta: Any = found.meta
        return Stored(
            content=bytes(found.bytes()),
            tag={name: meta[name] for name in ("e_tag", "version") if meta[name] is not None},
            modified_ns=int(meta["last_modified"].timestamp()) * 10**9,
        )


def write_object(
    folder: StoreFolder, path: str, content: bytes, *, instead_of: Stored | None
) -> bool:
    """Write an object if it is still what it was; return whether that was so.

    Args:
        folder: Where.
        path: Relative to it.
        content: New content.
        instead_of: What was read; None if there was no object.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    mode: Any = "create" if instead_of is None else instead_of.tag
    with explained(folder):
        try:
            obstore.put(client(folder), path, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return False
        return True


@lru_cache(maxsize=16)
def require_conditions(lake: StoreFolder) -> None:
    """Stop where a store does not keep to conditions: two drivers would lose each other's commits.

    Raises:
        UserError: Naming the store, also where it cannot be reached.
    """
    path = f"{LEASES}/condition"
    write_object(lake, path, b"1", instead_of=None)
    found = read_object(lake, path)
    stale = None if found is None else Stored(content=b"", tag=_stale(found.tag), modified_ns=0)
    keeps = not write_object(lake, path, b"2", instead_of=None)
    if not keeps or stale is None or write_object(lake, path, b"3", instead_of=stale):
        raise UserError(
            f"the store of {lake} overwrites objects whatever condition it is given: several "
            "drivers would lose each other's commits there",
            remedy="take a store with conditional writes (If-None-Match and If-Match), or a folder",
        )


def keeps_versions(lake: StoreFolder) -> bool:
    """Return whether the store goes on keeping what is overwritten or removed."""
    import obstore

    path = f"{LEASES}/versions"
    with explained(lake):
        put: Any = obstore.put(client(lake), path, uuid4().bytes, use_multipart=False)
    version = put.get("version")
    return lake.scheme == "s3a" and version not in (None, "null")


def _stale(tag: dict[str, str]) -> dict[str, str]:
    """Return the tag of an object that never was."""
    return {name: "1" if name == "version" else f'"{uuid4().hex}"' for name in tag}


@contextmanager
def explained(folder: StoreFolder) -> Iterator[None]:
    """Turn what a store answers into one line; "there is none" stays what it is."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise _refusal(folder, error) from None
    except (BaseError, OSError, ValueError) as error:
        raise _refusal(folder, error) from None


def _refusal(folder: StoreFolder, error: Exception) -> UserError:
    """Return one line; the error itself holds requests in all their parts."""
    text = _COLOURS.sub("", str(error))
    head = text.partition("Debug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    reason = code[1] if code else " ".join(head.replace("↳", "").split())[:300]
    return UserError(f"the lake at {folder} cannot be used: {reason}", remedy=_REMEDY)
