"""Find the rows of a user: by the id itself, and by free text that names it.

An id matches as a value, never as a part of another one. Free text is the text of a row that could
not be parsed, and the ids of a row that names no user; it matches where the id stands in it between
characters that are neither letters, digits nor underscores. The conditions are SQL without a
literal of the id: a literal would be written into a table's log. What is suppressed at ingestion is
known by its HMAC-SHA256 only, which built-in functions compute.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.contract import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

USER_DOMAIN, TEXT_DOMAIN = "user:", "text:"
_INSIDE = r"\p{L}\p{N}_"
_IDS = ("event_id", "impression_id", "request_id")
_TEXT_COLUMNS = ("raw_text", "payload")
_PAYLOAD = ", ".join(f"{name} STRING" for name in ("user_id", "raw_text", *_IDS))


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedText:
    """Hold one way in which free text writes a user's id.

    Attributes:
        text: The id as written, from its first to its last letter, digit or underscore.
        pieces: How many runs of letters, digits and underscores it has.
    """

    text: str
    pieces: int


def named_texts(user_id: str) -> tuple[NamedText, ...]:
    """Return the ways in which JSON, CSV and plain text write an id."""
    written = {user_id, user_id.replace('"', '""')}
    written |= {json.dumps(user_id, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    cores = {found[0] for text in written if (found := re.search(r"\w(?:.*\w)?", text, re.DOTALL))}
    return tuple(
        NamedText(text=core, pieces=len(re.findall(r"\w+", core))) for core in sorted(cores)
    )


def is_personal(table: Table) -> bool:
    """Return whether a table's rows can be those of a user."""
    return not {"user_id", *_TEXT_COLUMNS}.isdisjoint(table.column_names)


def has_free_text(table: Table) -> bool:
    """Return whether a table's rows can name a user in free text."""
    return not set(_TEXT_COLUMNS).isdisjoint(table.column_names)


def owner(table: Table, *, row: str) -> str:
    """Return SQL for the id of a row's user.

    Args:
        table: The contract of a personal table.
        row: Alias of its rows.
    """
    if "user_id" in table.column_names:
        return f"{row}.user_id"
    return f"get_json_object({row}.payload, '$.user_id')"


def free_text(table: Table, *, row: str) -> str:
    """Return SQL for the free text of a row; empty where it has none.

    Args:
        table: The contract of a table with free text.
        row: Alias of its rows.
    """
    if "raw_text" in table.column_names:
        return _free_text(row)
    parsed = f"from_json({row}.payload, '{_PAYLOAD}')"
    return f"transform(array({parsed}), raw -> {_free_text('raw')})[0]"


def _free_text(row: str) -> str:
    ids = ", ".join(f"{row}.{name}" for name in _IDS)
    nobody = f"coalesce(trim({row}.user_id), '') = ''"
    return f"concat_ws(chr(10), {row}.raw_text, IF({nobody}, concat_ws(chr(10), {ids}), NULL))"


def passages(text: str, *, pieces: str) -> str:
    """Return SQL for all passages of a text that have so many pieces.

    Args:
        text: SQL of the text.
        pieces: SQL of the number of runs of letters, digits and underscores.
    """
    words = f"regexp_extract_all({text}, r'[{_INSIDE}]+[^{_INSIDE}]*', 0)"
    passage = f"array_join(slice(words, place + 1, {pieces}), '')"
    trimmed = f"regexp_replace({passage}, r'[^{_INSIDE}]+$', '')"
    return f"transform(array({words}), words -> transform(words, (word, place) -> {trimmed}))[0]"


def hmac_sha256(text: str, *, inner: str, outer: str) -> str:
    """Return SQL for an HMAC-SHA256 in hexadecimal digits.

    Args:
        text: SQL of the message, a string; its UTF-8 bytes count.
        inner: SQL of the padded key, each byte xor 0x36.
        outer: SQL of the padded key, each byte xor 0x5c.

    Source: RFC 2104, section 2.
    """
    first = f"unhex(sha2(concat({inner}, CAST({text} AS BINARY)), 256))"
    return f"sha2(concat({outer}, {first}), 256)"


def mark_suppressed(frame: "DataFrame", *, keys: "DataFrame", users: "DataFrame") -> "DataFrame":
    """Add `is_suppressed` to rows: whether the user, or one whom free text names, is suppressed.

    Args:
        frame: Rows with `user_id`; those of `RAW_EVENTS` have free text too.
        keys: One row: `inner_key`, `outer_key`, `text_macs` and the `text_pieces` to look for.
        users: One row per suppressed user: `user_mac`.
    """
    from pyspark.sql import functions as F  # the definitions load this module without Spark

    pads = {"inner": "inner_key", "outer": "outer_key"}
    mac = hmac_sha256(f"concat('{USER_DOMAIN}', user_id)", **pads)
    keyed = frame.crossJoin(F.broadcast(keys)).withColumn("user_mac", F.expr(mac))
    listed = F.broadcast(users.withColumn("is_listed", F.lit(True)))
    joined = keyed.join(listed, on="user_mac", how="left")
    marked = F.col("is_listed").isNotNull()
    if "raw_text" in frame.columns:
        found = passages("free_text", pieces="pieces")
        each = hmac_sha256(f"concat('{TEXT_DOMAIN}', passage)", **pads)
        macs = f"transform(flatten(transform(text_pieces, pieces -> {found})), passage -> {each})"
        named = f"free_text <> '' AND coalesce(arrays_overlap({macs}, text_macs), false)"
        joined = joined.alias("row").withColumn("free_text", F.expr(_free_text("row")))
        marked = marked | F.expr(f"CASE WHEN free_text = '' THEN false ELSE {named} END")
    return joined.select(*frame.columns, marked.alias("is_suppressed"))
