"""Writes are checked, single commits, repeatable, and leave the table as it was when they fail."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.testing import assertDataFrameEqual

from infra.contract_guard import fingerprint
from infra.delta_arrow import arrow
from infra.errors import UserError
from infra.lakehouse import Commit, Lakehouse
from pipelines.contract import Table
from tests.infra.small_disk import mounted
from tests.local_folder import local

EVENTS = Table(
    name="events",
    group="events",
    row="one event",
    columns=(("event_id", "string"), ("event_date", "date"), ("clicks", "int")),
    key=("event_date", "event_id"),
    partition_by="event_date",
    required=("event_id", "event_date"),
)
THINGS = Table(
    name="things",
    group="tables",
    row="one thing",
    columns=(
        ("thing", "string"),
        ("size", "int"),
        ("seen", "timestamp"),
        ("tags", "array<string>"),
        ("features", "map<string,string>"),
    ),
    key=("thing",),
    required=("thing", "size"),
)
JAN30, JAN31, FEB1 = date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 1)
NOON = datetime(2024, 1, 30, 12)


@pytest.fixture(params=["day", "month"])
def lake(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Lakehouse:
    """Return an empty lake of each partition width."""
    return Lakehouse(tmp_path / "lake", spark, partition_unit=request.param)


@pytest.fixture
def plain_lake(spark: SparkSession, tmp_path: Path) -> Lakehouse:
    """Return an empty lake."""
    return Lakehouse(tmp_path / "lake", spark)


def events(spark: SparkSession, *rows: tuple[str | None, date | None, int | None]) -> DataFrame:
    return spark.createDataFrame(list(rows), EVENTS.schema)


def things(spark: SparkSession, *rows: tuple[str, int | None]) -> DataFrame:
    full = [(*row, NOON, ["x", None], {"b": "2", "a": "1"}) for row in rows]
    return spark.createDataFrame(full, THINGS.schema)


def rows_of(lake: Lakehouse, table: Table) -> list[tuple[object, ...]]:
    return sorted(tuple(row) for row in lake.read(table).collect())


def test_same_days_twice_give_the_same_rows(lake: Lakehouse, spark: SparkSession) -> None:
    frame = events(spark, ("a", JAN30, 1), ("b", JAN31, 2), ("c", FEB1, None))
    first = lake.overwrite_partition(EVENTS, frame, start=JAN30, end=FEB1)
    again = lake.overwrite_partition(EVENTS, frame, start=JAN30, end=FEB1)
    assert (first.version, first.num_rows) == (0, 3)
    assert (again.version, again.num_rows) == (1, 3)
    assert first.num_bytes > 0
    assertDataFrameEqual(lake.read(EVENTS), frame)


def test_one_day_leaves_the_other_days_as_they_are(lake: Lakehouse, spark: SparkSession) -> None:
    before = events(spark, ("a", JAN30, 1), ("b", JAN31, 2), ("c", JAN31, 3), ("d", FEB1, 4))
    lake.overwrite_partition(EVENTS, before, start=JAN30, end=FEB1)
    commit = lake.overwrite_partition(
        EVENTS, events(spark, ("e", JAN31, 9)), start=JAN31, end=JAN31
    )
    assert (commit.version, commit.num_rows) == (1, 1)
    assert rows_of(lake, EVENTS) == [("a", JAN30, 1), ("d", FEB1, 4), ("e", JAN31, 9)]
    assert lake.read(EVENTS, version=0).count() == 4
    lake.overwrite_partition(EVENTS, events(spark), start=JAN30, end=JAN31)
    assert rows_of(lake, EVENTS) == [("d", FEB1, 4)]


def test_contract_columns_only_and_readable_without_spark(
    lake: Lakehouse, spark: SparkSession
) -> None:
    shuffled = events(spark, ("a", JAN30, 1)).select("clicks", "event_date", "event_id")
    lake.overwrite_partition(EVENTS, shuffled, start=JAN30, end=JAN30)
    assert lake.read(EVENTS).columns == ["event_id", "event_date", "clicks"]
    table = arrow(lake.root, EVENTS)
    assert table.to_pylist() == [{"event_id": "a", "event_date": JAN30, "clicks": 1}]


def test_unchanged_snapshot_makes_no_version(plain_lake: Lakehouse, spark: SparkSession) -> None:
    frame = things(spark, ("a", 1), ("b", 2))
    first = plain_lake.overwrite(THINGS, frame)
    again = plain_lake.overwrite(THINGS, frame.orderBy(F.desc("thing")).coalesce(1))
    assert first.changed
    assert again == Commit(version=0, num_rows=2, num_bytes=first.num_bytes, changed=False)
    changed = plain_lake.overwrite(THINGS, things(spark, ("a", 1), ("b", 3)))
    assert (changed.version, changed.num_rows, changed.changed) == (1, 2, True)


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("tags", "array(CAST(NULL AS string), 'x')"),
        ("tags", "CAST(NULL AS array<string>)"),
        ("seen", "seen + INTERVAL 1 MICROSECOND"),
        ("features", "map('a', '2', 'b', '1')"),
    ],
    ids=["null moved", "null array", "one microsecond", "values swapped"],
)
def test_smallest_change_of_a_snapshot_is_noticed(
    spark: SparkSession, name: str, expression: str
) -> None:
    frame = things(spark, ("a", 1))
    other = frame.withColumn(name, F.expr(expression))
    assert fingerprint(other, THINGS) != fingerprint(frame, THINGS)


def test_snapshot_may_be_made_from_the_table_itself(
    plain_lake: Lakehouse, spark: SparkSession
) -> None:
    plain_lake.overwrite(THINGS, things(spark, ("a", 1)))
    larger = plain_lake.read(THINGS).withColumn("size", F.col("size") + 1)
    plain_lake.overwrite(THINGS, larger)
    assert [row["size"] for row in plain_lake.read(THINGS).collect()] == [2]


def test_merge_replaces_and_inserts_by_key(lake: Lakehouse, spark: SparkSession) -> None:
    lake.merge(EVENTS, events(spark, ("a", JAN30, 1), ("b", FEB1, 2)))
    change = events(spark, ("b", FEB1, 7), ("a", FEB1, 8))
    commit = lake.merge(EVENTS, change)
    assert (commit.version, commit.num_rows) == (1, 2)
    expected = [("a", JAN30, 1), ("a", FEB1, 8), ("b", FEB1, 7)]
    assert rows_of(lake, EVENTS) == expected
    lake.merge(EVENTS, change)
    assert rows_of(lake, EVENTS) == expected


@pytest.mark.parametrize("exists", [False, True])
def test_merge_refuses_a_key_twice(
    plain_lake: Lakehouse, spark: SparkSession, exists: bool
) -> None:
    if exists:
        plain_lake.merge(THINGS, things(spark, ("a", 1)))
    with pytest.raises(ValueError, match=r"table things has 1 keys \(thing\) twice"):
        plain_lake.merge(THINGS, things(spark, ("b", 1), ("b", 2)))
    assert plain_lake.exists(THINGS) is exists


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (["event_id", "event_date"], "lacks clicks"),
        (["*", "1 AS extra"], "has the unknown column extra"),
        (
            ["event_id", "event_date", "CAST(clicks AS bigint) AS clicks"],
            "has clicks as bigint instead of int",
        ),
        (["*", "clicks"], "has two columns of one name"),
    ],
)
def test_frame_of_another_schema_is_refused(
    plain_lake: Lakehouse, spark: SparkSession, expression: list[str], message: str
) -> None:
    frame = events(spark, ("a", JAN30, 1)).selectExpr(*expression)
    with pytest.raises(ValueError, match=f"frame for table events .*{message}"):
        plain_lake.overwrite_partition(EVENTS, frame, start=JAN30, end=JAN30)
    assert not local(plain_lake.path(EVENTS)).exists()


def test_required_nulls_are_counted_and_nothing_is_kept(
    plain_lake: Lakehouse, spark: SparkSession
) -> None:
    frame = events(spark, ("a", JAN30, 1), (None, JAN30, 2), (None, None, 3))
    expected = r"events has 2 rows with null event_id, 1 rows with null event_date"
    for write in (
        lambda: plain_lake.overwrite_partition(EVENTS, frame, start=JAN30, end=JAN30),
        lambda: plain_lake.overwrite(EVENTS, frame),
        lambda: plain_lake.merge(EVENTS, frame),
    ):
        with pytest.raises(ValueError, match=expected):
            write()
    assert not plain_lake.exists(EVENTS)
    assert list(local(plain_lake.path(EVENTS)).rglob("*.parquet")) == []


def test_row_of_another_day_is_refused(plain_lake: Lakehouse, spark: SparkSession) -> None:
    plain_lake.overwrite_partition(EVENTS, events(spark, ("a", JAN30, 1)), start=JAN30, end=JAN30)
    frame = events(spark, ("b", JAN30, 2), ("c", JAN31, 3))
    with pytest.raises(ValueError, match="1 rows with event_date outside the written range"):
        plain_lake.overwrite_partition(EVENTS, frame, start=JAN30, end=JAN30)
    assert rows_of(plain_lake, EVENTS) == [("a", JAN30, 1)]
    assert plain_lake.version(EVENTS) == 0


def test_wrong_calls_are_named(plain_lake: Lakehouse, spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="table things has no partition column: use overwrite"):
        plain_lake.overwrite_partition(THINGS, things(spark), start=JAN30, end=JAN30)
    with pytest.raises(ValueError, match="end 2024-01-30 is before start 2024-01-31"):
        plain_lake.overwrite_partition(EVENTS, events(spark), start=JAN31, end=JAN30)
    with pytest.raises(ValueError, match="partition_unit must be day or month, not 'week'"):
        Lakehouse(plain_lake.root, spark, partition_unit="week")
    for read in (plain_lake.read, plain_lake.version):
        with pytest.raises(UserError, match=r"table things does not exist .*materialise it first"):
            read(THINGS)


def test_table_of_an_older_contract_is_named(plain_lake: Lakehouse, spark: SparkSession) -> None:
    older = Table(name="things", group="tables", row="", columns=THINGS.columns[:2], key=("thing",))
    plain_lake.overwrite(older, things(spark, ("a", 1)).select("thing", "size"))
    with pytest.raises(UserError, match=r"lacks seen, tags, features: .*make clean-data"):
        plain_lake.read(THINGS)
    plain_lake.overwrite(THINGS, things(spark, ("a", 1)))
    assert plain_lake.read(THINGS).count() == 1


def test_tables_stay_readable_for_every_delta_client(
    plain_lake: Lakehouse, spark: SparkSession
) -> None:
    plain_lake.overwrite(THINGS, things(spark, ("a", 1)))
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{plain_lake.path(THINGS)}`").collect()[0]
    assert (detail["minReaderVersion"], detail["minWriterVersion"]) == (1, 2)
    assert "delta.enableDeletionVectors" not in {
        name for name, value in detail["properties"].items() if value == "true"
    }


def test_writers_at_the_same_time_lose_nothing(plain_lake: Lakehouse, spark: SparkSession) -> None:
    days = [date(2024, 3, day) for day in range(1, 5)]

    def write(day: date) -> int:
        frame = events(spark, (f"e{day.day}", day, day.day))
        return plain_lake.overwrite_partition(EVENTS, frame, start=day, end=day).version

    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(write, days))
    assert sorted(versions) == [0, 1, 2, 3]
    assert rows_of(plain_lake, EVENTS) == [(f"e{day.day}", day, day.day) for day in days]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MiB; skip where the machine does not allow it."""
    with mounted(tmp_path / "disk", mebibytes=2) as folder:
        yield folder


@pytest.mark.parametrize("how", ["overwrite", "overwrite_partition"])
def test_full_disk_leaves_the_table_as_it_was(
    spark: SparkSession, small_disk: Path, how: str
) -> None:
    lake = Lakehouse(small_disk, spark)
    table = EVENTS if how == "overwrite_partition" else PLAIN
    lake.merge(table, events(spark, ("a", JAN30, 1)))
    files = sorted(small_disk.rglob("*.parquet"))
    large = spark.range(100_000).select(
        F.sha2(F.col("id").cast("string"), 256).alias("event_id"),
        F.lit(JAN30).alias("event_date"),
        F.lit(1).alias("clicks"),
    )
    options = {"start": JAN30, "end": JAN30} if how == "overwrite_partition" else {}
    with pytest.raises(UserError, match=r"no space left on the disk of .*RANKLAKE_HOME") as caught:
        getattr(lake, how)(table, large, **options)
    assert "\n" not in str(caught.value)
    assert lake.version(table) == 0
    assert rows_of(lake, table) == [("a", JAN30, 1)]
    assert sorted(small_disk.rglob("*.parquet")) == files
    getattr(lake, how)(table, events(spark, ("b", JAN30, 2)), **options)
    assert ("b", JAN30, 2) in rows_of(lake, table)


PLAIN = Table(
    name="plain",
    group="tables",
    row=EVENTS.row,
    columns=EVENTS.columns,
    key=EVENTS.key,
    required=EVENTS.required,
)
