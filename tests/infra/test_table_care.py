"""Care joins files, keeps pinned versions readable and removes the others'."""

import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.delta_arrow import arrow
from infra.lakehouse import Commit, Lakehouse
from infra.table_care import care_for
from pipelines.contract import Table

VISITS = Table(
    name="visits",
    group="events",
    row="one visit",
    columns=(("visit", "string"), ("day", "date"), ("seen", "array<timestamp>")),
    key=("visit",),
    partition_by="day",
)
WORDS = Table(name="words", group="t", row="", columns=(("word", "string"),), key=("word",))
DAY = date(2026, 5, 1)
NOW = timedelta(0)


def write(lake: Lakehouse, spark: SparkSession, visit: str, *, parts: int = 1) -> Commit:
    rows = [(f"{visit}{part}", DAY, []) for part in range(parts)]
    frame = spark.createDataFrame(rows, VISITS.schema).repartition(parts)
    return lake.overwrite_partition(VISITS, frame, start=DAY, end=DAY)


def visits(root: Path, version: int | None = None) -> list[str]:
    return sorted(arrow(root, VISITS, version=version)["visit"].to_pylist())


def test_pinned_version_outlives_care_and_others_do_not(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lakehouse(tmp_path, spark)
    for visit in "abc":
        write(lake, spark, visit, parts=2)
    stray = lake.path(VISITS) / f"day={DAY}" / "part-of-a-killed-driver.parquet"
    stray.write_bytes(b"half")
    os.utime(stray, (0, stray.stat().st_mtime - 60))
    assert care_for(tmp_path, VISITS).removed_files == 0  # all is younger than seven days
    told = care_for(tmp_path, VISITS, pins={0, 9}, retention=NOW, dry_run=True)
    assert visits(tmp_path, 1) == ["b0", "b1"]
    assert stray.exists()

    cared = care_for(tmp_path, VISITS, pins={0, 9}, retention=NOW)
    assert (cared.pinned, cared.lost_pins) == ((0,), (9,))
    # The stray file, two files of b, and the two of c that the first care joined into one.
    assert (told.removed_files, cared.removed_files) == (5, 5)
    assert cared.removed_bytes > 4
    assert not stray.exists()
    assert visits(tmp_path, 0) == ["a0", "a1"]
    assert lake.read(VISITS, version=0).count() == 2
    assert visits(tmp_path) == ["c0", "c1"]
    assert (cared.state.rows, cared.state.files, cared.state.without_statistics) == (2, 1, 0)
    with pytest.raises(Exception, match=r"(?i)not found|no such file|does not exist"):
        visits(tmp_path, 1)
    unpinned = care_for(tmp_path, VISITS, retention=NOW)
    assert unpinned.removed_files == 2
    with pytest.raises(Exception, match=r"(?i)not found|no such file|does not exist"):
        visits(tmp_path, 0)
    assert write(lake, spark, "d").num_rows == 1
    assert visits(tmp_path) == ["d0"]


def test_joined_files_hold_the_same_rows_for_spark(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lakehouse(tmp_path, spark)
    words = spark.createDataFrame([("x",), ("y",), ("z",)], WORDS.schema)
    lake.overwrite(WORDS, words.repartition(3))
    cared = care_for(tmp_path, WORDS)
    assert (cared.joined_files, cared.state.files) == (3, 1)
    assert sorted(row["word"] for row in lake.read(WORDS).collect()) == ["x", "y", "z"]
    again = lake.overwrite(WORDS, words)
    assert (again.num_rows, again.changed) == (3, False)  # the write's note outlives the care
    assert again.state is not None
    names = [operation.name for operation in again.state.operations]
    assert names[-1] == "CREATE OR REPLACE TABLE AS SELECT"
    assert "OPTIMIZE" in names
