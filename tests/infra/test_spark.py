"""The session has the house's options, is the only one, and keeps its files in the data home."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.settings import Settings
from infra.spark import spark_options, spark_session

# Writes an instant under another zone than it is read under.
_PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from infra.settings import Settings
from infra.spark import spark_session
spark = spark_session(Settings.from_env())
frame = spark.createDataFrame([(datetime(2025, 3, 30, 1, 30, tzinfo=UTC),)], "at timestamp")
(row,) = frame.selectExpr("CAST(at AS string) AS text", "CAST(at AS long) AS seconds").collect()
print(row["text"], row["seconds"])
"""


def test_session_is_shared_and_has_the_options(
    spark: SparkSession, tmp_path: Path, jar_cache: Path
) -> None:
    assert spark_session(Settings(home=tmp_path, jars=jar_cache)) is spark
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.databricks.delta.snapshotPartitions") == "2"
    assert spark.conf.get("spark.sql.execution.arrow.pyspark.enabled") == "true"
    assert spark.sparkContext.uiWebUrl is None


def test_row_groups_are_small_enough_to_be_streamed(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    columns = [f"rand({seed}) AS number_{seed}" for seed in range(6)]
    numbers = spark.range(0, 450_000, 1, 1).selectExpr(*columns)  # some 22 MB
    numbers.write.format("delta").save(str(path))
    (file,) = path.glob("*.parquet")
    metadata = pq.ParquetFile(file).metadata
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    assert len(sizes) >= 2
    assert max(sizes) < 24 << 20


def test_options_follow_the_settings(tmp_path: Path, jar_cache: Path) -> None:
    settings = Settings(home=tmp_path, jars=jar_cache, driver_memory="3g", shuffle_partitions=7)
    options = spark_options(settings)
    assert options["spark.driver.memory"] == "3g"
    assert options["spark.sql.shuffle.partitions"] == "7"
    assert options["spark.jars"].count(str(jar_cache)) == 2
    assert options["spark.sql.warehouse.dir"].startswith(str(tmp_path))
    assert options["spark.local.dir"].startswith(str(tmp_path))


def test_own_process_needs_no_network_and_leaves_its_folder_clean(
    tmp_path: Path, checkout: Path, jar_cache: Path
) -> None:
    isolate = [
        "unshare",
        "--net",
        "--map-root-user",
        "sh",
        "-c",
        'ip link set lo up; exec "$@"',
        "-",
    ]
    allowed = subprocess.run([*isolate, "true"], capture_output=True, check=False).returncode == 0
    answer = subprocess.run(
        [*(isolate if allowed else []), sys.executable, "-c", _PROGRAM],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "RANKLAKE_HOME": str(tmp_path / "home"),
            "RANKLAKE_JARS": str(jar_cache),
            "TZ": "Asia/Shanghai",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "2025-03-30 01:30:00 1743298200"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
