"""Write and read the Delta tables of the lake; nothing else in ranklake writes them.

A write is checked against its contract, is one Delta commit, can be repeated with the same
result, and leaves the table as it was if it fails. It does not know what the rows mean.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from infra import delta_arrow
from infra.contract_guard import conform, describe_breach, fingerprint, guard, repeated_keys
from infra.contract_version import (
    LOG_RETENTION,
    LOG_RETENTION_VALUE,
    PROPERTY,
    contract_version,
    refuse_other_version,
    statistics_properties,
)
from infra.errors import UserError
from infra.failed_write import (
    explain,
    is_gone,
    jvm_died,
    release,
    remove_orphans,
    wait_for_tasks,
)
from infra.full_disk import told_if_full
from infra.lake_location import Folder
from infra.store_session import reach_lake
from infra.table_history import TableState, table_state
from infra.write_lock import write_lock
from pipelines.contract import Table
from pipelines.migrations import Migrations, migrate_rows

MONTH_COLUMN = "event_month"


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """Describe one write.

    Attributes:
        version: Delta version that holds the rows.
        num_rows: Rows written; by a merge, inserted and updated.
        num_bytes: Bytes of the data files written.
        changed: False if the table already held these rows and no version was made.
        state: Size and last operations of the table after the write.
    """

    version: int
    num_rows: int
    num_bytes: int
    changed: bool = True
    state: TableState | None = field(default=None, compare=False)


class Lakehouse:
    """Give access to the Delta tables under one folder, local or of an object store."""

    def __init__(self, root: Folder, spark: SparkSession, *, partition_unit: str = "day") -> None:
        """Bind the lake to a folder and a session.

        Args:
            root: Folder of the lake.
            spark: Session with Delta.
            partition_unit: "day" or "month", the width of an event table's Delta partition.

        Raises:
            ValueError: If the unit is neither.
            UserError: If the session cannot reach the object store that the root is on.
        """
        if partition_unit not in ("day", "month"):
            raise ValueError(f"partition_unit must be day or month, not {partition_unit!r}")
        self.root = root
        self._spark = spark
        self._is_monthly = partition_unit == "month"
        reach_lake(spark, root)

    def path(self, table: Table) -> Folder:
        """Return the folder of a table."""
        return delta_arrow.table_path(self.root, table)

    def exists(self, table: Table) -> bool:
        """Return whether the table has been written."""
        return delta_arrow.exists(self.root, table)

    def version(self, table: Table) -> int:
        """Return the newest version of a table.

        Raises:
            UserError: If the table has not been written.
        """
        return delta_arrow.open_table(self.root, table).version()

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """Return a table, columns in contract order.

        Args:
            table: Contract of the table.
            version: Delta version, the newest by default.

        Raises:
            UserError: If the table has not been written, was for another version of its
                contract, or lacks a contract column.
        """
        opened = delta_arrow.open_table(self.root, table, version=version)
        refuse_other_version(opened, table, is_pinned=version is not None)
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(str(self.path(table)))
        if missing := [name for name in table.column_names if name not in frame.columns]:
            raise UserError(
                f"table {table.name} at {self.path(table)} lacks {', '.join(missing)}: it was "
                "written by another version of ranklake",
                remedy="start over with make clean-data",
            )
        return frame.select(*table.column_names)

    def overwrite(self, table: Table, frame: DataFrame) -> Commit:
        """Replace a table by a frame; make no version if it already holds the same rows.

        A table of an older contract is replaced whole, and is one of today's contract then.

        Raises:
            ValueError: If the frame breaks the contract.
            UserError: If the disk is full.
        """
        checked = guard(conform(frame, table), table)
        return self._write(
            table, frame, action=lambda: self._replace(table, checked), replaces_all=True
        )

    def overwrite_partition(
        self, table: Table, frame: DataFrame, *, start: date, end: date
    ) -> Commit:
        """Replace the rows of a range of days by a frame; leave the other days as they are.

        Args:
            table: Contract of a partitioned table.
            frame: All rows of the range, none of another day.
            start: First day.
            end: Last day, inclusive.

        Raises:
            ValueError: If the frame breaks the contract or holds another day's row.
            UserError: If the table was written for another contract, or the disk is full.
        """
        column = table.partition_by
        if column is None:
            raise ValueError(f"table {table.name} has no partition column: use overwrite")
        if end < start:
            raise ValueError(f"end {end} is before start {start}")
        inside = F.col(column).between(F.lit(start), F.lit(end))
        checked = guard(conform(frame, table), table, inside=inside)
        where = f"{column} >= '{start}' AND {column} <= '{end}'"
        if self._is_monthly:
            where += f" AND {MONTH_COLUMN} >= '{start:%Y-%m-01}' AND {MONTH_COLUMN} <= '{end}'"
        options = {"replaceWhere": where}
        return self._write(
            table, frame, action=lambda: self._save(table, checked, options), inside=inside
        )

    def merge(self, table: Table, frame: DataFrame) -> Commit:
        """Insert the rows whose key is new and replace those whose key is there.

        Raises:
            ValueError: If the frame breaks the contract or holds a key twice.
            UserError: If the table was written for another contract, or the disk is full.
        """
        checked = guard(conform(frame, table), table).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            return self._write(table, frame, action=lambda: self._upsert(table, checked))
        finally:
            release(checked)

    def listed(self, rows: list[tuple[Any, ...]], schema: str) -> DataFrame:
        """Return a small frame of values, as `delete_rows` takes one."""
        return self._spark.createDataFrame(rows, schema).coalesce(1)

    def delete_rows(self, table: Table, condition: str, *, listed: DataFrame) -> Commit:
        """Delete the rows that match a row of a list; make no version if none does.

        Files that hold no such row are left as they are. The condition is written into the
        table's log, the list is not.

        Args:
            table: Contract of a table that exists.
            condition: SQL over a row `old` of the table and a row `listed` of the list.
            listed: What to delete by.

        Returns:
            The newest commit; `num_rows` is the number of rows deleted.

        Raises:
            UserError: If the table was written for another contract, or the disk is full.
        """
        frame = self.read(table)
        found = frame.alias("old").join(listed.alias("listed"), F.expr(condition), "left_semi")
        if not (deleted := found.count()):
            return replace(self._commit(table, changed=False), num_rows=0, num_bytes=0)
        commit = self._write(table, frame, action=lambda: self._delete(table, condition, listed))
        return replace(commit, num_rows=deleted)

    def migrate(self, table: Table, migrations: Migrations) -> tuple[int, Commit]:
        """Carry a table of an older contract to today's in one commit; else do nothing.

        Args:
            table: Contract of today.
            migrations: Steps by table name and the version that each starts from.

        Returns:
            The version of the contract that was found, and the newest commit.

        Raises:
            ValueError: If a step is missing or its rows break the contract.
            UserError: If the table does not exist, is newer than its contract, or the disk is
                full.
        """
        found = contract_version(delta_arrow.open_table(self.root, table))
        if found == table.version:
            return found, self._commit(table, changed=False)
        old = self._spark.read.format("delta").load(str(self.path(table)))
        frame = migrate_rows(old, table, from_version=found, migrations=migrations)
        checked = guard(conform(frame, table), table)
        commit = self._write(
            table, frame, action=lambda: self._save(table, checked, {}), replaces_all=True
        )
        return found, commit

    def _write(
        self,
        table: Table,
        frame: DataFrame,
        *,
        action: Callable[[], bool],
        inside: Column | None = None,
        replaces_all: bool = False,
    ) -> Commit:
        folder = self.path(table)
        with told_if_full(folder), write_lock(self._spark, self.root, table) as started_ns:
            remove_orphans(folder, started_ns=started_ns)
            self._refuse_other_contract(table, replaces_all=replaces_all)
            try:
                changed = action()
            except (PySparkException, Py4JError, ConnectionError) as error:
                if is_gone(self._spark):
                    remove_orphans(folder, started_ns=started_ns)
                    raise jvm_died(table.name) from error
                wait_for_tasks(self._spark)
                remove_orphans(folder, started_ns=started_ns)
                raise explain(
                    error,
                    folder=folder,
                    describe=lambda: describe_breach(frame, table, inside=inside),
                ) from error
            return self._commit(table, changed=changed)

    def _refuse_other_contract(self, table: Table, *, replaces_all: bool) -> None:
        if not self.exists(table):
            return
        opened = delta_arrow.open_table(self.root, table)
        if not (replaces_all and contract_version(opened) < table.version):
            refuse_other_version(opened, table)

    def _is_current(self, table: Table) -> bool:
        """Return whether the table exists and was written for today's contract."""
        if not self.exists(table):
            return False
        return contract_version(delta_arrow.open_table(self.root, table)) == table.version

    def _commit(self, table: Table, *, changed: bool) -> Commit:
        entry = delta_arrow.last_commit(self.root, table)
        return Commit(
            version=entry.version,
            num_rows=entry.num_rows,
            num_bytes=entry.num_bytes,
            changed=changed,
            state=table_state(delta_arrow.open_table(self.root, table)),
        )

    def _replace(self, table: Table, frame: DataFrame) -> bool:
        if not self._is_current(table):
            # Nothing to compare with: the rows are written as they are computed, in one pass.
            return self._save(table, frame, {})
        held = frame.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            mark = fingerprint(held, table)
            if mark == self._mark(table):
                return False
            return self._save(table, held, {"overwriteSchema": "true", "userMetadata": mark})
        finally:
            release(held)

    def _mark(self, table: Table) -> str | None:
        """Return the fingerprint of a table's rows; None if its columns are not the contract's.

        A commit notes it, but for the first, which is written before it is known.
        """
        if (noted := delta_arrow.last_commit(self.root, table).mark) is not None:
            return noted
        frame = self._spark.read.format("delta").load(str(self.path(table)))
        try:
            return fingerprint(conform(frame, table), table)
        except ValueError:
            return None

    def _save(self, table: Table, frame: DataFrame, options: dict[str, str]) -> bool:
        column = table.partition_by
        if column is not None and self._is_monthly:
            frame = frame.withColumn(MONTH_COLUMN, F.trunc(column, "month"))
            column = MONTH_COLUMN
        if not self._is_current(table):
            self._create(table, frame, column=column)
            return True
        writer = frame.write.format("delta").mode("overwrite").options(**options)
        if column is not None:
            writer = writer.partitionBy(column)
        writer.save(str(self.path(table)))
        return True

    def _create(self, table: Table, frame: DataFrame, *, column: str | None) -> None:
        """Make the table, or replace it whole, with its properties in the same commit."""
        writer = frame.writeTo(self._quoted(table)).using("delta")
        writer = writer.tableProperty(PROPERTY, str(table.version))
        writer = writer.tableProperty(LOG_RETENTION, LOG_RETENTION_VALUE)
        for name, value in statistics_properties(table, partition_by=column).items():
            writer = writer.tableProperty(name, value)
        if column is not None:
            writer = writer.partitionedBy(F.col(column))
        writer.createOrReplace()

    def _delete(self, table: Table, condition: str, listed: DataFrame) -> bool:
        with self._view(listed) as view:
            self._spark.sql(
                f"MERGE INTO {self._quoted(table)} AS old USING {view} AS listed ON {condition} "
                "WHEN MATCHED THEN DELETE"
            )
        return True

    def _upsert(self, table: Table, frame: DataFrame) -> bool:
        if repeats := repeated_keys(frame, table):
            raise ValueError(
                f"frame for table {table.name} has {repeats} keys ({', '.join(table.key)}) twice"
            )
        if not self.exists(table):
            return self._save(table, frame, {})
        if table.partition_by is not None and self._is_monthly:
            frame = frame.withColumn(MONTH_COLUMN, F.trunc(table.partition_by, "month"))
        same_key = " AND ".join(f"old.`{name}` <=> new.`{name}`" for name in table.key)
        with self._view(frame) as view:
            # SQL, for Spark Connect does not know Delta's own interface.
            self._spark.sql(
                f"MERGE INTO {self._quoted(table)} AS old USING {view} AS new ON {same_key} "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            )
        return True

    @contextmanager
    def _view(self, frame: DataFrame) -> Iterator[str]:
        """Give a frame a name in SQL."""
        view = f"ranklake_{uuid4().hex}"
        frame.createOrReplaceTempView(view)
        try:
            yield view
        finally:
            with suppress(Py4JError, PySparkException, OSError):
                self._spark.catalog.dropTempView(view)

    def _quoted(self, table: Table) -> str:
        """Return a table's name in SQL."""
        path = str(self.path(table)).replace("`", "``")
        return f"delta.`{path}`"
