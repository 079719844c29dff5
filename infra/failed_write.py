"""What is left to do after a Delta write failed: clean up, and say why in one line."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from infra.commit_lock import is_remote
from infra.contract_guard import VIOLATION
from infra.delta_arrow import data_files
from infra.errors import DriverLostError
from infra.full_disk import disk_full, says_full
from infra.lake_files import LOG, files_under, read_file, remove_files
from infra.lake_location import Folder, StoreFolder

_POLL_SECONDS = 0.1


def explain(error: Exception, *, folder: Folder, describe: Callable[[], str]) -> Exception:
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


def remove_orphans(folder: Folder, *, started_ns: int) -> int:
    """Delete the data files that a failed write left; return how many.

    Must be called under the table's commit lock: what appeared since it was acquired and is not
    in the table is then nobody else's.

    Args:
        folder: Folder of the table.
        started_ns: Time of the lock's acquisition by the clock of whoever keeps the files.
    """
    if isinstance(folder, StoreFolder):
        return _remove_stored(folder, started_ns=started_ns)
    kept = data_files(folder)
    orphans = [
        folder / file.path
        for file in files_under(folder)
        if file.path.endswith((".parquet", ".parquet.crc", ".tmp"))
        and file.modified_ns >= started_ns
        and file.path not in kept
    ]
    for path in orphans:
        # A file that the JVM failed to close keeps its space until it is emptied.
        os.truncate(path, 0)
        path.unlink()
    return len(orphans)


def _remove_stored(folder: StoreFolder, *, started_ns: int) -> int:
    """Delete orphans on a store, whose clock knows seconds only.

    So the writer before may have written its files within the second in which the lock was
    acquired, and a commit after it may have replaced them: what any commit since then names stays.
    """
    recent = [file.path for file in files_under(folder) if file.modified_ns >= started_ns]
    data = [path for path in recent if path.endswith(".parquet") and not _is_log(path)]
    if not data:
        return 0
    kept = set(data_files(folder))
    for entry in (path for path in recent if _is_log(path) and path.endswith(".json")):
        kept |= _named(read_file(folder, entry))
    orphans = [path for path in data if path not in kept]
    remove_files(folder, orphans)
    return len(orphans)


def _is_log(path: str) -> bool:
    return path.startswith(f"{LOG}/")


def _named(entry: bytes) -> set[str]:
    """Return the paths of data files that an entry of a table's log adds or removes."""
    actions = [json.loads(line) for line in entry.splitlines() if line.strip()]
    found = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
    return {unquote(each["path"]) for each in found}
