"""Keep the writers of the lake apart: a lock file on a local path, a lease on an object store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from infra.commit_lock import commit_lock, jvm_lock
from infra.lake_location import Folder, StoreFolder
from infra.lease import lease
from infra.lease_holder import this_driver
from infra.object_store import LEASES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.contract import Table


def lock_name(table: "Table") -> str:
    """Return the name of a table's lock or lease."""
    return f"{table.group}.{table.name}"


def lake_lock(root: Folder, name: str) -> AbstractContextManager[int]:
    """Hold a lock of the lake under a root, for what needs no JVM.

    Yields:
        The moment since which files may be there that no commit names, by the clock of whoever
        keeps them, in nanoseconds.

    Raises:
        UserError: If another driver holds it for too long.
    """
    if isinstance(root, StoreFolder):
        return lease(root, name)
    return commit_lock(root / LEASES / name)


def table_lock(root: Folder, table: "Table") -> AbstractContextManager[int]:
    """Hold the lock of a table, for what needs no JVM; yields and raises as `lake_lock`."""
    return lake_lock(root, lock_name(table))


@contextmanager
def write_lock(spark: "SparkSession", root: Folder, table: "Table") -> Iterator[int]:
    """Hold the lock of a table for this process and its session; else as `lake_lock`."""
    if isinstance(root, StoreFolder):
        with lease(root, lock_name(table), driver=this_driver(spark)) as started_ns:
            yield started_ns
        return
    path = root / LEASES / lock_name(table)
    with commit_lock(path) as started_ns, jvm_lock(spark, path):
        yield started_ns
