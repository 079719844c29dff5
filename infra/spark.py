"""One Spark session per process, with Delta: in this process, or of a Spark that runs elsewhere."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError
from infra.jars import delta_jars, lake_jars, lake_packages
from infra.java import find_java
from infra.settings import Settings
from infra.spark_cluster import (
    ANSWER_SECONDS,
    cluster_options,
    connect_session,
    send_pipelines,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOOPBACK = "127.0.0.1"
# A streamed training decodes a row group from its beginning for every chunk of its rows.
_ROW_GROUPS, _ROW_GROUP_BYTES = "parquet.block.size", 16 << 20
# Spark's own log goes to a file, warnings and above: what matters reaches Python as an exception.
_LOG_CONFIG = Path(__file__).with_name("spark_log4j2.properties")


def spark_session(settings: Settings, *, answer_seconds: float = ANSWER_SECONDS) -> "SparkSession":
    """Return the session of this process, starting it on the first call.

    A session that runs is returned as it is, whatever the settings say.

    Args:
        settings: Say which Spark, and how much of the machine it may use.
        answer_seconds: How long a worker of a Spark that runs elsewhere may take to answer.

    Raises:
        UserError: If Java is missing or too old, Delta's jars cannot be had, or the Spark that
            the settings name does not answer.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if settings.spark_remote is not None:
        options = _session_options(settings) | {_ROW_GROUPS: str(_ROW_GROUP_BYTES)}
        session = connect_session(settings, options)
    else:
        session = _own_driver(settings)
    if settings.spark_remote is not None or settings.spark_master is not None:
        try:
            send_pipelines(session, settings, answer_seconds=answer_seconds)
        except UserError:
            session.stop()
            raise
    return session


def _own_driver(settings: Settings) -> "SparkSession":
    """Start a driver in this process, with executors here or at a master."""
    from py4j.protocol import Py4JError
    from pyspark.sql import SparkSession

    find_java(settings)
    options = spark_options(settings)
    os.environ.setdefault("SPARK_LOCAL_IP", options["spark.driver.bindAddress"])
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    master = settings.spark_master or f"local[{settings.threads}]"
    builder = SparkSession.builder.appName("ranklake").master(master)
    for name, value in options.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Py4JError as error:
        if settings.spark_master is None:
            raise
        raise UserError(
            f"the master at SPARK_MASTER={master} did not take this application (log: "
            f"{settings.spark_folder / 'spark.log'})",
            remedy="see that it is a master of this version of Spark",
        ) from error


def spark_options(settings: Settings) -> dict[str, str]:
    """Return the Spark options, fetching the jars that the cache lacks."""
    folder = settings.spark_folder
    folder.mkdir(parents=True, exist_ok=True)
    jars = ",".join(str(path) for path in (*delta_jars(settings), *lake_jars(settings)))
    if settings.spark_master is None:
        # The scratch of a cluster's executors is for its own machines to say.
        place = {"spark.local.dir": str(folder / "scratch")}
    else:
        place = cluster_options(settings)
    return {
        **_machine_options(settings),
        **_sql_options(settings),
        **place,
        **_packages(settings, folder),
        "spark.jars": jars,
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.extraJavaOptions": _jvm_options(settings),
    }


def _packages(settings: Settings, folder: Path) -> dict[str, str]:
    """Return what lets Spark fetch the packages that the lake's file system is made of."""
    if not (packages := lake_packages(settings)):
        return {}
    return {"spark.jars.packages": packages, "spark.jars.ivy": str(folder / "ivy")}


def _jvm_options(settings: Settings) -> str:
    options = [
        "-Duser.timezone=UTC",
        f"-Dderby.system.home={settings.spark_folder}",
        "-XX:+UseParallelGC",
        f"-Dlog4j2.configurationFile={_LOG_CONFIG.as_uri()}",
        f"-Dranklake.spark.log={settings.spark_folder / 'spark.log'}",
    ]
    if settings.profile == "test":
        # Small frames: the second compiler costs a third of all time and never pays it back.
        options.append("-XX:TieredStopAtLevel=1")
    return " ".join(options)


def _machine_options(settings: Settings) -> dict[str, str]:
    return {
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.host": _LOOPBACK,
        "spark.driver.bindAddress": _LOOPBACK,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }


def _sql_options(settings: Settings) -> dict[str, str]:
    options = _table_options(settings)
    if settings.profile == "test":
        # Compiling a query costs more than running it over a few rows.
        options["spark.sql.codegen.wholeStage"] = "false"
        options["spark.sql.codegen.factoryMode"] = "NO_CODEGEN"
    return options


def _table_options(settings: Settings) -> dict[str, str]:
    return {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalogImplementation": "in-memory",
        f"spark.hadoop.{_ROW_GROUPS}": str(_ROW_GROUP_BYTES),
        **_session_options(settings),
    }


def _session_options(settings: Settings) -> dict[str, str]:
    """Return what may be set on a session that runs."""
    return {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Each batch that goes through Python costs some fixed time, a third of all at 10,000 rows.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        # Any other limit is held by measuring the batch after each row, a seventh of a cut's time.
        "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        # The log of a small table is read with 50 tasks by default, most of them empty.
        "spark.databricks.delta.snapshotPartitions": "2",
        # Readers outside Spark cannot read deletion vectors into Arrow.
        "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
    }
