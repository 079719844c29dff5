"""Tables of another version of their contract are refused, or migrated in one commit."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.delta_arrow import arrow
from infra.errors import UserError
from infra.lakehouse import Lakehouse
from pipelines.contract import Table
from pipelines.migrations import MIGRATIONS, Migrations, migrate_rows
from pipelines.tables import ALL_TABLES
from tests.local_folder import local

FIRST = Table(
    name="clicks",
    group="tables",
    row="one click",
    columns=(("click", "string"), ("day", "date"), ("seconds", "int")),
    key=("click",),
    partition_by="day",
    required=("click",),
)
THIRD = Table(
    name="clicks",
    group="tables",
    row="one click",
    columns=(("click", "string"), ("day", "date"), ("dwell_ms", "bigint"), ("surface", "string")),
    key=("click",),
    partition_by="day",
    required=("click", "surface"),
    version=3,
)
MARCH, APRIL = date(2026, 3, 31), date(2026, 4, 1)


def to_milliseconds(frame: DataFrame) -> DataFrame:
    dwell = (F.col("seconds") * 1000).cast("bigint")
    return frame.select("click", "day", dwell.alias("dwell_ms"))


def with_surface(frame: DataFrame) -> DataFrame:
    return frame.select("*", F.lit("home").alias("surface"))


STEPS: Migrations = {("clicks", 1): to_milliseconds, ("clicks", 2): with_surface}


@pytest.fixture(params=["day", "month"])
def lake(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Lakehouse:
    """Return a lake of each partition width with two days of the first contract."""
    lake = Lakehouse(tmp_path / "lake", spark, partition_unit=request.param)
    rows = [("a", MARCH, 2), ("b", APRIL, None)]
    lake.overwrite_partition(
        FIRST, spark.createDataFrame(rows, FIRST.schema), start=MARCH, end=APRIL
    )
    return lake


def test_older_table_is_refused_until_it_is_migrated(lake: Lakehouse, spark: SparkSession) -> None:
    new = spark.createDataFrame([("c", APRIL, 5, "page")], THIRD.schema)
    for use in (
        lambda: lake.read(THIRD),
        lambda: arrow(lake.root, THIRD),
        lambda: lake.merge(THIRD, new),
        lambda: lake.overwrite_partition(THIRD, new, start=APRIL, end=APRIL),
    ):
        with pytest.raises(UserError, match=r"clicks .*version 1 of its .*3; run make migrate"):
            use()
    assert lake.version(FIRST) == 0
    partitions = local(lake.path(FIRST)).glob("*=*")
    folders = {path.name for path in partitions}

    found, commit = lake.migrate(THIRD, STEPS)
    assert (found, commit.version, commit.num_rows, commit.changed) == (1, 1, 2, True)
    assert {path.name for path in local(lake.path(THIRD)).glob("*=*")} == folders
    rows = [("a", MARCH, 2000, "home"), ("b", APRIL, None, "home")]
    assert sorted(map(tuple, lake.read(THIRD).collect())) == rows
    again = lake.migrate(THIRD, STEPS)
    assert (again[0], again[1].version, again[1].changed) == (3, 1, False)

    lake.overwrite_partition(THIRD, new, start=APRIL, end=APRIL)
    last = [("a", MARCH, 2000, "home"), ("c", APRIL, 5, "page")]
    assert sorted(map(tuple, lake.read(THIRD).collect())) == last
    with pytest.raises(UserError, match="read it with the release that wrote it"):
        lake.read(THIRD, version=0)
    with pytest.raises(UserError, match=r"version 3 of its .* version 1; update ranklake"):
        lake.overwrite(FIRST, lake.read(FIRST, version=0))


def test_failed_migration_leaves_the_table_as_it_was(lake: Lakehouse) -> None:
    with pytest.raises(ValueError, match="clicks has no migration from version 2; add it to"):
        lake.migrate(THIRD, {("clicks", 1): to_milliseconds})
    nothing = {
        **STEPS,
        ("clicks", 2): lambda f: f.withColumn("surface", F.lit(None).cast("string")),
    }
    with pytest.raises(ValueError, match="clicks has 2 rows with null surface"):
        lake.migrate(THIRD, nothing)
    assert lake.version(FIRST) == 0
    assert sorted(map(tuple, lake.read(FIRST).collect())) == [("a", MARCH, 2), ("b", APRIL, None)]


def test_rows_of_an_older_whole_table_may_be_replaced(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lakehouse(tmp_path, spark)
    old = Table(name="k", group="t", row="", columns=(("k", "int"),), key=("k",))
    new = Table(name="k", group="t", row="", columns=(("k", "int"),), key=("k",), version=2)
    lake.overwrite(old, spark.range(3).select(F.col("id").cast("int").alias("k")))
    commit = lake.overwrite(new, spark.range(3).select(F.col("id").cast("int").alias("k")))
    assert (commit.version, commit.changed) == (1, True)
    assert lake.read(new).count() == 3


def test_every_contract_has_the_steps_to_it() -> None:
    tables = {table.name: table for table in ALL_TABLES}
    for name, table in tables.items():
        for step in range(1, table.version):
            assert (name, step) in MIGRATIONS, f"{name} needs a migration from version {step}"
    for name, step in MIGRATIONS:
        assert step < tables[name].version, f"{name} has no version after {step}"


def test_rows_of_today_pass_unchanged(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("a", MARCH, 1, "x")], THIRD.schema)
    assert migrate_rows(frame, THIRD, from_version=3, migrations=STEPS) is frame
