"""Tables that Spark wrote are read into Arrow without a JVM."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from infra.delta_arrow import arrow, last_commit
from infra.errors import UserError
from infra.lakehouse import Lakehouse
from pipelines.contract import Table

KINDS = Table(
    name="kinds",
    group="tables",
    row="one value of every type of the contracts",
    columns=(
        ("key", "string"),
        ("day", "date"),
        ("at", "timestamp"),
        ("small", "int"),
        ("large", "bigint"),
        ("real", "double"),
        ("flag", "boolean"),
        ("words", "array<string>"),
        ("vector", "array<float>"),
        ("times", "array<timestamp>"),
        ("features", "map<string,string>"),
    ),
    key=("key",),
    partition_by="day",
    required=("key",),
)
FIRST, SECOND = date(2025, 3, 30), date(2025, 3, 31)
# Microseconds, and an hour that does not exist in many zones.
AT = datetime(2025, 3, 30, 1, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
def lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arrow-lake")
    rows = [
        ("a", FIRST, AT, 1, 2**40, 0.5, True, ["x", None], [0.25, -1.0], [None, AT], {"k": "v"}),
        ("b", SECOND, None, None, None, None, None, None, None, None, None),
    ]
    frame = spark.createDataFrame(rows, KINDS.schema)
    Lakehouse(root, spark).overwrite_partition(KINDS, frame, start=FIRST, end=SECOND)
    Lakehouse(root, spark, partition_unit="month").overwrite_partition(
        MONTHLY, frame, start=FIRST, end=SECOND
    )
    Lakehouse(root, spark).overwrite_partition(
        KINDS, frame.where("key = 'c'"), start=SECOND, end=SECOND
    )
    return root


MONTHLY = Table(
    name="monthly",
    group="tables",
    row=KINDS.row,
    columns=KINDS.columns,
    key=KINDS.key,
    partition_by="day",
    required=KINDS.required,
)


def test_every_type_of_the_contracts_arrives(lake: Path) -> None:
    (row,) = arrow(lake, KINDS, filters=[("key", "=", "a")]).to_pylist()
    assert row == {
        "key": "a",
        "day": FIRST,
        "at": AT,
        "small": 1,
        "large": 2**40,
        "real": 0.5,
        "flag": True,
        "words": ["x", None],
        "vector": [0.25, -1.0],
        "times": [None, AT],
        "features": [("k", "v")],
    }


def test_nulls_arrive_and_the_month_column_does_not(lake: Path) -> None:
    table = arrow(lake, MONTHLY).sort_by("key")
    assert table.column_names == list(KINDS.column_names)
    last = table.to_pylist()[1]
    assert (last["key"], last["day"]) == ("b", SECOND)
    assert {last[name] for name in table.column_names[2:]} == {None}


def test_an_older_version_can_be_read(lake: Path) -> None:
    assert arrow(lake, KINDS, columns=("key",)).to_pydict() == {"key": ["a"]}
    old = arrow(lake, KINDS, version=0, columns=("key", "day"))
    assert sorted(old.to_pydict()["key"]) == ["a", "b"]
    assert old.schema.field("day").type == pa.date32()


def test_filter_on_the_partition_column(lake: Path) -> None:
    found = arrow(lake, MONTHLY, columns=("key",), filters=[("day", ">=", SECOND)])
    assert found.to_pydict() == {"key": ["b"]}


def test_unknown_column_and_missing_table_are_named(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table kinds has no column age"):
        arrow(lake, KINDS, columns=("key", "age"))
    with pytest.raises(UserError, match=r"table kinds does not exist at .*materialise it first"):
        arrow(tmp_path, KINDS)


def test_log_tells_rows_and_bytes_of_the_newest_commit(lake: Path) -> None:
    entry = last_commit(lake, MONTHLY)
    files = list((lake / "tables" / "monthly").glob("event_month=*/*.parquet"))
    assert (entry.version, entry.num_rows) == (0, 2)
    assert entry.num_bytes == sum(path.stat().st_size for path in files)


def test_reader_imports_no_spark(checkout: Path) -> None:
    program = "import sys, infra.delta_arrow; sys.exit('pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=checkout, check=True)
