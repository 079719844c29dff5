"""Care joins files, keeps pinned versions readable and removes the others'."""

import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.delta_arrow import arrow
from infra.lakehouse import Commit, Lakehouse
from infra.table_care import care_for, forget_history
from pipelines.contract import Table
from tests.jobs.id_search import files_with
from tests.local_folder import local

VISITS = Table(
    name="visits",
    group="events",
    row="one visit",
    columns=(("visit", "string"), ("day", "date"), ("seen", "array<timestamp>")),
    key=("visit",),
    partition_by="day",
)
WORDS = Table(name="words", group="t", row="", columns=(("word", "string"),), key=("word",))
PEOPLE = Table(
    name="people",
    group="t",
    row="one user",
    columns=(("user_id", "string"), ("visits", "int")),
    key=("user_id",),
)
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
    stray = local(lake.path(VISITS)) / f"day={DAY}" / "part-of-a-killed-driver.parquet"
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


def test_table_with_users_in_its_statistics_loses_them_with_its_history(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lakehouse(tmp_path, spark)
    rows = spark.createDataFrame([("ann-7f3a9", 3), ("bob", 4)], PEOPLE.schema).coalesce(1)
    rows.write.format("delta").save(str(lake.path(PEOPLE)))  # as an earlier release wrote it
    ann = lake.listed([("ann-7f3a9",)], "user_id string")
    condition = "old.user_id = listed.user_id"
    assert lake.delete_rows(PEOPLE, condition, listed=ann).num_rows == 1
    assert lake.delete_rows(PEOPLE, condition, listed=ann).changed is False
    assert files_with(local(lake.path(PEOPLE)) / "_delta_log", "ann-7f3a9")
    assert forget_history(tmp_path, PEOPLE).removed_files == 1
    assert files_with(tmp_path, "ann-7f3a9") == []
    new = spark.createDataFrame([("eve-7f3a9", 5)], PEOPLE.schema)
    assert lake.merge(PEOPLE, new).num_rows == 1
    assert sorted(tuple(row) for row in lake.read(PEOPLE).collect()) == [
        ("bob", 4),
        ("eve-7f3a9", 5),
    ]
    care_for(tmp_path, PEOPLE)  # joins the files, and writes statistics of its own
    assert files_with(local(lake.path(PEOPLE)) / "_delta_log", "eve-7f3a9") == []
