"""Files of one log whose columns appear, go or change type: recorded, null, rejected or refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

from pipelines.cleaning import split_raw
from pipelines.sources import mapped
from pipelines.sources.errors import SourceError

MAPPING = """
log = "labelled"
primary_action = "click"
[columns]
user = "user"
item = "item"
surface = "page"
[time]
column = "at"
unit = "s"
[action.columns]
click = "clicked"
[dwell]
column = "dwell"
"""
NOON = 1_774_785_600
ONE = {"user": "1", "item": "i1", "page": "home", "at": NOON, "clicked": 1, "dwell": 2500}
# The next day: no page, a new column, and the dwell in words.
TWO = {"user": "ann", "item": "i2", "at": NOON + 86_400, "clicked": 0, "dwell": "900", "os": "x"}
BAD = TWO | {"user": "bob", "dwell": "long"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder of logs whose name holds characters that mean patterns."""
    (tmp_path / "mapping.toml").write_text(MAPPING)
    (tmp_path / "log [1]").mkdir()
    return tmp_path / "log [1]"


def write_csv(file: Path, rows: list[dict]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    file.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def write_jsonl(file: Path, rows: list[dict]) -> None:
    file.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(file: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file.with_suffix(".parquet"))


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
SEVERAL = {
    "csv": None,
    "jsonl": "dwell (number or string)",
    "parquet": "dwell (int64 or string)",
}


@pytest.mark.parametrize("kind", WRITERS)
def test_later_file_may_have_other_columns(spark: SparkSession, folder: Path, kind: str) -> None:
    options = {"mapping": str(folder.parent / "mapping.toml")}
    WRITERS[kind](folder / "a", [ONE, ONE | {"user": "2", "at": NOON + 86_400}])
    manifest = mapped.describe(spark, str(folder), options)
    assert list(manifest.columns) == list(ONE)
    assert mapped.changed_columns(str(folder), manifest, options) == {}

    WRITERS[kind](folder / "b", [TWO, BAD])
    notes = mapped.changed_columns(str(folder), manifest, options)
    texts = {"csv": "text", "jsonl": "string", "parquet": "string"}
    assert notes["source columns that appeared"] == f"os ({texts[kind]})"
    lacking = notes["source columns that some files lack, null there"]
    assert lacking == f"page (not in b.{kind}), os (not in a.{kind})"
    assert notes.get("source columns of several types, read as text") == SEVERAL[kind]

    start, end = manifest.start_date, manifest.end_date
    raw = mapped.events(spark, str(folder), manifest, options, start=start, end=end)
    kept, rejected = split_raw(raw, items=None, manifest=manifest)
    found = sorted(map(facts, kept.collect()))
    assert found == [("1", 2500, "home"), ("2", 2500, "home"), ("ann", 900, "none")]
    (refused,) = rejected.collect()
    assert refused["reason"] == "unparsable"
    assert '"long"' in json.loads(refused["payload"])["raw_text"]


def facts(row: Row) -> tuple[str, int, str]:
    return row["user_id"], row["dwell_ms"], row["surface"] or "none"


def test_parquet_days_may_differ_in_every_type(spark: SparkSession, folder: Path) -> None:
    options = {"mapping": str(folder.parent / "mapping.toml")}
    for day, rows in (
        ("day=1", [ONE]),
        ("day=2", [{name: str(value) for name, value in ONE.items()} | {"user": "2"}]),
        ("day=3", [ONE | {"user": 3, "clicked": True, "dwell": 2500.0, "at": float(NOON)}]),
    ):
        (folder / day).mkdir()
        write_parquet(folder / day / "a", rows)
    manifest = mapped.describe(spark, str(folder), options)
    start, end = manifest.start_date, manifest.end_date
    raw = mapped.events(spark, str(folder), manifest, options, start=start, end=end).collect()
    assert sorted(map(facts, raw)) == [(user, 2500, "home") for user in "123"]
    assert {(row["event_time"].timestamp(), *row["actions"]) for row in raw} == {(NOON, "click")}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_file_that_cannot_say_who_did_what_is_refused_by_name(
    spark: SparkSession, folder: Path, kind: str
) -> None:
    options = {"mapping": str(folder.parent / "mapping.toml")}
    WRITERS[kind](folder / "a", [ONE])
    manifest = mapped.describe(spark, str(folder), options)
    WRITERS[kind](folder / "b", [{k: v for k, v in ONE.items() if k != "clicked"}])
    with pytest.raises(
        SourceError, match=rf"action.columns.click names .*'clicked'.*/b\.{kind} lacks"
    ):
        mapped.events(
            spark,
            str(folder),
            manifest,
            options,
            start=manifest.start_date,
            end=manifest.end_date,
        )


def test_half_a_parquet_file_is_named_before_anything_is_read(
    spark: SparkSession, folder: Path
) -> None:
    write_parquet(folder / "a", [ONE])
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:200])
    with pytest.raises(SourceError, match=r"cannot read .*b\.parquet: .*check that the file"):
        mapped.describe(spark, str(folder), {"mapping": str(folder.parent / "mapping.toml")})
