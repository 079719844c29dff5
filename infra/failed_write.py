"""What is left to do after a Delta write failed: clean up, and say why in one line."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from infra.commit_lock import is_remote
from infra.contract_guard import VIOLATION
from infra.delta_arrow import data_files
from infra.errors import DriverLostError
from infra.full_disk import disk_full, says_full

_POLL_SECONDS = 0.1


def explain(error: Exception, *, folder: Path, describe: Callable[[], str]) -> Exception:
    """Return the exception to raise instead of Spark's.

    Args:
        error: What Spark raised.
        folder: Folder of the table.
        describe: Counts the rows that break the contract; called only if some do.
    """
    text = str(error)
    if says_full(text):
        return disk_full(folder)
    if VIOLATION in text:
        return ValueError(describe() or f"frame for {folder.name} breaks its contract")
    return error


def is_gone(spark: SparkSession) -> bool:
    """Return whether the session's driver does not answer any more."""
    try:
        _ = spark.version  # asks the driver
    except (Py4JError, PySparkException, OSError):
        return True
    return False


def jvm_died(table: str) -> DriverLostError:
    """Return what to say where the driver's JVM ended in the middle of a write."""
    return DriverLostError(
        f"Spark's JVM ended while table {table} was written; the table is as it was, or holds "
        "the whole write",
        remedy="run again; give it more memory with RANKLAKE_DRIVER_MEMORY if it ran out",
    )


def release(frame: DataFrame) -> None:
    """Drop a frame from the session's memory; nothing is left to do if the JVM has died."""
    with suppress(Py4JError, PySparkException, OSError):
        frame.unpersist()


def wait_for_tasks(spark: SparkSession, *, timeout_seconds: float = 20.0) -> bool:
    """Wait until no task runs; return False if one still does after the time-out.

    Spark reports a failed job before the job's other tasks have stopped writing. A Connect server
    does not tell; what such tasks leave there goes with the next vacuum.
    """
    if is_remote(spark):
        return False
    context: Any = spark.sparkContext._jsc
    tracker = context.sc().statusTracker()
    deadline = time.monotonic() + timeout_seconds
    while any(executor.numRunningTasks() > 0 for executor in tracker.getExecutorInfos()):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def remove_orphans(folder: Path, *, started_ns: int) -> int:
    """Delete the data files that a failed write left; return how many.

    Must be called under the table's commit lock: what appeared since it was acquired and is not
    in the table is then nobody else's.

    Args:
        folder: Folder of the table.
        started_ns: Time of the lock's acquisition by the file system's clock.
    """
    kept = data_files(folder)
    orphans = [
        path
        for path in folder.rglob("*")
        if path.name.endswith((".parquet", ".parquet.crc", ".tmp"))
        and path.stat().st_mtime_ns >= started_ns
        and str(path) not in kept
    ]
    for path in orphans:
        # A file that the JVM failed to close keeps its space until it is emptied.
        os.truncate(path, 0)
        path.unlink()
    return len(orphans)
