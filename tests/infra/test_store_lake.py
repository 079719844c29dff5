"""The lakehouse on an object store does what it does in a folder, and leaves nothing behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import psutil
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra import delta_arrow
from infra.delta_arrow import arrow, data_files, table_path
from infra.errors import UserError
from infra.lake_files import files_under, read_file
from infra.lake_location import Folder, StoreFolder, lake_folder
from infra.lake_owner import claim_lake
from infra.lake_sizes import table_sizes
from infra.lakehouse import Lakehouse
from infra.lease import held_lease
from infra.lease_holder import jvm_pid
from infra.settings import Settings
from infra.table_care import care_for, forget_history, num_versions
from infra.user_files import holding_files, holds_user
from pipelines.contract import Table
from tests.infra.s3_server import S3Server

VISITS = Table(
    name="visits",
    group="events",
    row="one visit",
    columns=(("user_id", "string"), ("day", "date"), ("count", "int")),
    key=("user_id",),
    partition_by="day",
)
FIRST, SECOND = date(2026, 5, 1), date(2026, 5, 2)
NOW = timedelta(0)
Row = tuple[str, date, int]


@pytest.fixture
def lake(s3: S3Server, request: pytest.FixtureRequest) -> StoreFolder:
    """Return an empty lake of a test's own."""
    found = lake_folder(f"{s3.environ['RANKLAKE_LAKE']}/{request.node.originalname}", s3.environ)
    assert isinstance(found, StoreFolder)
    return found


def write(house: Lakehouse, spark: SparkSession, *rows: Row) -> int:
    days = [row[1] for row in rows]
    frame = spark.createDataFrame(rows, VISITS.schema).repartition(len(rows))
    return house.overwrite_partition(VISITS, frame, start=min(days), end=max(days)).version


def rows_of(root: Folder, version: int | None = None) -> list[Row]:
    found = arrow(root, VISITS, version=version).to_pylist()
    return sorted((row["user_id"], row["day"], row["count"]) for row in found)


def history(spark: SparkSession, root: Folder) -> Iterator[object]:
    """Write, merge, migrate, travel and care; yield what is seen after each step."""
    house = Lakehouse(root, spark)
    write(house, spark, ("ann", FIRST, 1), ("bob", FIRST, 2), ("cid", SECOND, 3))
    write(house, spark, ("eve", SECOND, 4), ("fay", SECOND, 5))
    yield rows_of(root)
    merged = spark.createDataFrame([("eve", SECOND, 6), ("gus", FIRST, 7)], VISITS.schema)
    yield house.merge(VISITS, merged).num_rows
    yield rows_of(root)
    yield sorted(map(tuple, house.read(VISITS, version=1).collect()))
    held = holding_files(table_path(root, VISITS), VISITS, ["ann", "fay", "zoe"])
    yield sorted(user for users in held.values() for user in users)
    yield holds_user(table_path(root, VISITS), 2, holding=held)
    newer = replace(VISITS, version=2)
    steps = {("visits", 1): lambda old: old.withColumn("count", F.col("count") * 10)}
    found, commit = house.migrate(newer, steps)
    yield found, commit.num_rows, commit.changed
    cared = care_for(root, newer, pins={1, 99}, retention=NOW)
    yield cared.pinned, cared.lost_pins, cared.state.rows, cared.state.without_statistics
    yield rows_of(root, version=1)
    there = {file.path for file in files_under(table_path(root, newer))}
    yield len([path for path in there if path.endswith(".parquet")]) > 1, cared.removed_files > 0
    versions = num_versions(root, newer)
    yield forget_history(root, newer).removed_entries == versions
    yield sorted(map(tuple, house.read(newer).collect()))
    yield [(size.name, size.rows, size.files > 0) for size in table_sizes(root, (newer,))]


def test_every_operation_ends_as_in_a_folder(
    lake: StoreFolder, spark: SparkSession, tmp_path: Path
) -> None:
    local, stored = list(history(spark, tmp_path)), list(history(spark, lake))
    assert stored == local
    assert local[0] == [
        ("ann", FIRST, 1),
        ("bob", FIRST, 2),
        ("eve", SECOND, 4),
        ("fay", SECOND, 5),
    ]
    assert held_lease(lake, "events.visits") is None


def test_failed_write_leaves_no_file(lake: StoreFolder, spark: SparkSession) -> None:
    house = Lakehouse(lake, spark)
    write(house, spark, ("ann", FIRST, 1))
    write(house, spark, ("ann", FIRST, 2))
    before = {file.path for file in files_under(table_path(lake, VISITS))}
    frame = spark.range(40).repartition(8)
    broken = F.when(F.col("id") == 39, F.raise_error(F.lit("broken"))).otherwise(F.lit(1))
    frame = frame.select(
        F.col("id").cast("string").alias("user_id"),
        F.lit(FIRST).alias("day"),
        broken.cast("int").alias("count"),
    )
    with pytest.raises(PySparkException, match="broken"):
        house.overwrite_partition(VISITS, frame, start=FIRST, end=FIRST)
    assert {file.path for file in files_under(table_path(lake, VISITS))} == before
    assert rows_of(lake, version=0) == [("ann", FIRST, 1)]  # young too, and no orphan
    assert held_lease(lake, "events.visits") is None


_KILLED = """
import os, sys
from infra.lake_location import lake_folder
from infra.lease import lease
from infra.object_store import client
import obstore
lake = lake_folder(sys.argv[1], os.environ)
with lease(lake, "events.visits"):
    obstore.put(client(lake), "events/visits/day=2026-05-01/part-of-a-killed-driver.parquet", b"x")
    os.kill(os.getpid(), 9)
"""


def test_next_writer_removes_what_a_killed_one_left(
    lake: StoreFolder, spark: SparkSession, s3: S3Server, checkout: Path
) -> None:
    house = Lakehouse(lake, spark)
    write(house, spark, ("ann", FIRST, 1))
    environ = {"PATH": os.environ["PATH"], **s3.environ}
    killed = [sys.executable, "-c", _KILLED, str(lake)]
    assert subprocess.run(killed, cwd=checkout, env=environ, check=False).returncode == -9
    stray = [f.path for f in files_under(table_path(lake, VISITS)) if "killed" in f.path]
    assert stray
    write(house, spark, ("bob", FIRST, 2))
    there = {file.path for file in files_under(table_path(lake, VISITS))}
    assert not there & set(stray)
    assert data_files(table_path(lake, VISITS)) < there
    assert rows_of(lake, version=0) == [("ann", FIRST, 1)]


def test_secrets_are_in_no_command_line_log_entry_or_message(
    lake: StoreFolder, spark: SparkSession, s3: S3Server
) -> None:
    house = Lakehouse(lake, spark)
    write(house, spark, ("ann", FIRST, 1))
    assert s3.secret not in " ".join(psutil.Process(jvm_pid(spark)).cmdline())
    options = dict(spark.sparkContext.getConf().getAll())
    assert s3.secret not in str(options) + spark.sql("SET -v").toPandas().to_string()
    for file in files_under(lake):
        assert s3.secret.encode() not in read_file(lake, file.path)
    wrong = dict(lake.options) | {"aws_secret_access_key": "not-the-secret-at-all"}
    stranger = replace(lake, options=tuple(wrong.items()))
    for ask in (
        lambda: delta_arrow.exists(stranger, VISITS),
        lambda: delta_arrow.arrow(stranger, VISITS),
        lambda: files_under(stranger),
    ):
        with pytest.raises(UserError, match=r"cannot be used: .*Signature") as caught:
            ask()
        assert "not-the-secret-at-all" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket/lake", r"RANKLAKE_LAKE=s3:\.\.\. is not a place .*give s3a://bucket/prefix"),
        ("s3a://key:word@bucket/lake", r"RANKLAKE_LAKE=s3a:\.\.\. is not a place"),
        ("gs://bucket/a lake", r"RANKLAKE_LAKE=gs:\.\.\. is not a place"),
        ("abfss://container/lake", r"RANKLAKE_LAKE=abfss:\.\.\. is not a place"),
    ],
)
def test_places_that_cannot_hold_a_lake_are_refused(place: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Settings.from_env({"RANKLAKE_LAKE": place})
    assert "word" not in str(caught.value)


def test_each_source_has_a_lake_of_its_own(tmp_path: Path) -> None:
    places = {
        "s3a://bucket/lakes/": "s3a://bucket/lakes/mind",
        "gs://bucket": "gs://bucket/mind",
        "abfss://box@account.dfs.core.windows.net/lakes": (
            "abfss://box@account.dfs.core.windows.net/lakes/mind"
        ),
        str(tmp_path): f"{tmp_path}/mind",
    }
    for place, expected in places.items():
        settings = Settings.from_env(
            {
                "RANKLAKE_LAKE": place,
                "RANKLAKE_SOURCE": "mind",
                "AWS_SECRET_ACCESS_KEY": "topsecret",
            }
        )
        assert str(settings.lake) == expected
        assert "topsecret" not in repr(settings)


def test_lake_in_a_folder_elsewhere_is_held_to_its_source(tmp_path: Path) -> None:
    place = {"RANKLAKE_LAKE": str(tmp_path / "lakes"), "RANKLAKE_HOME": str(tmp_path / "home")}
    for _ in range(2):
        claim_lake(Settings.from_env(place))
    other = Settings.from_env({**place, "RANKLAKE_FEED_USERS": "7"})
    with pytest.raises(UserError, match=r"lakes/simulated was made from another source"):
        claim_lake(other)
    claim_lake(Settings.from_env({**place, "RANKLAKE_SOURCE": "mind"}))
    claim_lake(Settings.from_env({"RANKLAKE_HOME": str(tmp_path / "home")}))
    assert not (tmp_path / "home").exists()


def test_store_without_its_file_system_is_named(spark: SparkSession) -> None:
    lake = lake_folder("gs://bucket/lake", {})
    with pytest.raises(UserError, match=r"no file system for gs:// .*set RANKLAKE_LAKE_JARS"):
        Lakehouse(lake, spark)


def test_settings_of_jars(tmp_path: Path) -> None:
    from infra.jars import lake_jars, lake_packages

    names = "com.example:store:1.0, com.example:other:2.0"
    listed = Settings.from_env({"RANKLAKE_LAKE_JARS": names})
    assert lake_packages(listed) == "com.example:store:1.0,com.example:other:2.0"
    assert lake_jars(listed) == ()
    empty = Settings.from_env({"RANKLAKE_LAKE_JARS": str(tmp_path)})
    with pytest.raises(UserError, match=rf"RANKLAKE_LAKE_JARS={tmp_path} is neither a folder"):
        lake_jars(empty)
    (tmp_path / "store.jar").touch()
    assert [path.name for path in lake_jars(empty)] == ["store.jar"]
