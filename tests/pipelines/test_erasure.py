"""Rows of a user are found by the id as a value, and by free text that names it."""

import hashlib
import hmac
from contextlib import redirect_stdout
from io import StringIO

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.contract import Table
from pipelines.erasure import (
    free_text,
    hmac_sha256,
    mark_suppressed,
    named_texts,
    owner,
    passages,
)
from pipelines.tables import RAW_EVENTS, REJECTED_EVENTS

KEY = bytes(range(32))


def mac(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [
        ("u1", {("u1", 1)}),
        ("#ann-7.x@", {("ann-7.x", 3)}),
        ('a"b', {('a"b', 2), ('a""b', 2), ('a\\"b', 2)}),
        ("é1", {("é1", 1), ("u00e91", 1)}),
        ("--", set()),
    ],
)
def test_free_text_may_write_an_id_in_several_ways(
    user_id: str, expected: set[tuple[str, int]]
) -> None:
    assert {(found.text, found.pieces) for found in named_texts(user_id)} == expected


def test_passages_end_where_letters_digits_and_underscores_end(spark: SparkSession) -> None:
    frame = spark.createDataFrame([('{"u": "ann-7", x',), ("",), (None,)], "text string")
    found = [
        row[0] for row in frame.select(F.expr(passages("text", pieces="2"))).coalesce(1).collect()
    ]
    assert found == [['u": "ann', "ann-7", '7", x', "x"], [], None]


def test_hmac_equals_that_of_the_standard_library(spark: SparkSession) -> None:
    block = KEY.ljust(64, b"\0")
    pads = [bytearray(byte ^ pad for byte in block) for pad in (0x36, 0x5C)]
    texts = ["", "u1", "ü漢😀 \x00", "x" * 300]
    frame = spark.createDataFrame(
        [(text, *pads) for text in texts], "text string, i binary, o binary"
    )
    rows = frame.select("text", F.expr(hmac_sha256("text", inner="i", outer="o"))).collect()
    assert dict(rows) == {text: mac(text) for text in texts}


def raw(**values: object) -> tuple[object, ...]:
    return tuple(values.get(name) for name in RAW_EVENTS.column_names)


ROWS = {
    "own": raw(event_id="own", user_id="ann-7"),
    "prefix of another id": raw(event_id="other", user_id="ann-70", raw_text="ann-70 torn"),
    "torn row": raw(event_id="torn", raw_text='{"user":"ann-7","it'),
    "own torn id": raw(event_id="ann-7:3", user_id=" "),
    "id of another's event": raw(event_id="ann-7", user_id="bob"),
    "part of a longer word": raw(event_id="part", raw_text="joann-7"),
    "empty": raw(event_id="empty"),
}
PERSONAL = {"own", "torn row", "own torn id"}


def test_suppressed_rows_are_those_of_the_user_and_those_that_name_the_user(
    spark: SparkSession,
) -> None:
    block = KEY.ljust(64, b"\0")
    pads = [bytearray(byte ^ pad for byte in block) for pad in (0x36, 0x5C)]
    keys = spark.createDataFrame(
        [(*pads, [mac("text:ann-7"), mac("text:zoe")], [1, 2])],
        "inner_key binary, outer_key binary, text_macs array<string>, text_pieces array<int>",
    )
    users = spark.createDataFrame([(mac("user:ann-7"),), (mac("user:zoe"),)], "user_mac string")
    rows = spark.createDataFrame(list(ROWS.values()), RAW_EVENTS.schema)
    marked = mark_suppressed(rows, keys=keys, users=users)
    assert marked.columns == [*RAW_EVENTS.column_names, "is_suppressed"]
    names = {row[0]: name for name, row in ROWS.items()}
    found = {names[row["event_id"]]: row["is_suppressed"] for row in marked.collect()}
    assert found == {name: name in PERSONAL for name in ROWS}
    with redirect_stdout(StringIO()) as plan:
        marked.explain(extended=True)
    assert "user_mac" in plan.getvalue()
    assert mac("user:ann-7") not in plan.getvalue()
    assert pads[0].hex() not in plan.getvalue().lower()


@pytest.mark.parametrize("table", [RAW_EVENTS, REJECTED_EVENTS], ids=lambda table: table.name)
def test_payload_of_a_rejected_row_is_judged_as_the_raw_row(
    spark: SparkSession, table: Table
) -> None:
    rows = spark.createDataFrame(list(ROWS.values()), RAW_EVENTS.schema)
    if table is REJECTED_EVENTS:
        rows = rows.select("event_id", F.to_json(F.struct("*")).alias("payload"))
    listed = spark.createDataFrame([("ann-7", 2)], "text string, pieces int")
    text = passages(free_text(table, row="old"), pieces="listed.pieces")
    joined = rows.alias("old").crossJoin(listed.alias("listed"))
    is_own = F.expr(f"coalesce({owner(table, row='old')} = listed.text, false)")
    is_named = F.expr(f"coalesce(array_contains({text}, listed.text), false)")
    names = {row[0]: name for name, row in ROWS.items()}
    found = {names[row["event_id"]] for row in joined.where(is_own | is_named).collect()}
    assert found == PERSONAL
