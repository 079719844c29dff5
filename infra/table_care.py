"""Care of the lake's tables: join small files, and remove files that no kept version needs.

Files are joined within their partition. Nothing is Z-ordered: every read of the graph takes a
whole table or a range of days, and days are what the event tables are partitioned by, so another
order of the rows would be paid for and used by nobody. Liquid clustering would not do either: it
excludes partitions, a day's overwrite would rewrite files that hold other days' rows too, and the
reader without a JVM does not know it.

Delta's own retention knows times only. The versions that registered models were trained on are
kept beyond it: their data files by naming them to the vacuum, their log by a retention of the log
that ends never in practice. An erasure passes no pins, and its log begins anew. Every table is
cared for under its commit lock; care needs no JVM.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from infra import delta_arrow
from infra.contract_version import (
    LOG_RETENTION,
    LOG_RETENTION_VALUE,
    statistics_properties,
)
from infra.failed_write import remove_orphans
from infra.lake_files import LOG, data_paths, files_under, open_delta, remove_files
from infra.lake_location import Folder, StoreFolder
from infra.table_history import TableState, last_write, table_state
from infra.write_lock import table_lock
from pipelines.contract import Table

_VERSION = re.compile(r"\.?(\d{20})\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cared:
    """Say what care did to a table, or would do.

    Attributes:
        table: Name of the table.
        joined_files: Small files that were joined; 0 in a dry run, which does not try.
        removed_files: Data files removed, or that would be.
        removed_bytes: Their bytes.
        pinned: Versions that were kept although they are old.
        lost_pins: Versions that should have been kept but are not there any more.
        state: The table afterwards.
    """

    table: str
    joined_files: int
    removed_files: int
    removed_bytes: int
    pinned: tuple[int, ...]
    lost_pins: tuple[int, ...]
    state: TableState


def care_for(
    root: Folder,
    table: Table,
    *,
    pins: Collection[int] = (),
    retention: timedelta = timedelta(days=7),
    dry_run: bool = False,
) -> Cared:
    """Join a table's small files and remove what is older than the retention and not pinned.

    Args:
        root: Root of the lake.
        table: Contract of a table that exists.
        pins: Versions to keep whatever their age.
        retention: Age from which files that the newest version does not need are removed.
        dry_run: Change nothing, and tell what a vacuum of the table as it is would remove.

    Raises:
        UserError: If the table has not been written, or another writer holds it for an hour.
    """
    folder = delta_arrow.require(root, table)
    with table_lock(root, table) as started_ns:
        if not dry_run:
            remove_orphans(folder, started_ns=started_ns)
        opened = open_delta(folder)
        kept = _readable(folder, pins, newest=opened.version())
        joined = 0 if dry_run else _join_files(opened)
        if not dry_run:
            _set_properties(opened, table)
        readable = [pin for pin, is_there in kept.items() if is_there]
        sizes = {_name(file.path): file.num_bytes for file in files_under(folder)}
        removed = opened.vacuum(
            retention_hours=int(retention / timedelta(hours=1)),
            enforce_retention_duration=False,
            dry_run=dry_run,
            full=True,
            keep_versions=readable or None,
        )
        if not dry_run:
            _remove_checksums(folder)
        return Cared(
            table=table.name,
            joined_files=joined,
            removed_files=len(removed),
            removed_bytes=sum(sizes.get(_name(path), 0) for path in removed),
            pinned=tuple(readable),
            lost_pins=tuple(pin for pin, is_there in kept.items() if not is_there),
            state=table_state(open_delta(folder)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgottenHistory:
    """Say what went with the history of a table.

    Attributes:
        removed_files: Data files removed.
        removed_entries: Versions whose entry is in the log no more.
    """

    removed_files: int
    removed_entries: int


def num_versions(root: Folder, table: Table) -> int:
    """Return how many versions the log of a table that exists has an entry of."""
    log = delta_arrow.require(root, table) / LOG
    return sum(_entry(file.path) is not None for file in files_under(log))


def forget_history(root: Folder, table: Table) -> ForgottenHistory:
    """Remove every version of a table but the newest, pinned or not: its files and its log.

    Can be repeated, and finishes what was interrupted. What another driver left is removed too.

    Args:
        root: Root of the lake.
        table: Contract of a table that exists.

    Raises:
        UserError: If the table has not been written, or another writer holds it for an hour.
    """
    folder = delta_arrow.require(root, table)
    with table_lock(root, table) as started_ns:
        remove_orphans(folder, started_ns=started_ns)
        opened = open_delta(folder)
        _set_properties(opened, table)
        removed = opened.vacuum(
            retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True
        )
        _remove_checksums(folder)
        opened = open_delta(folder)
        opened.create_checkpoint()
        versions = _cut_log(folder / LOG, newest=opened.version())
        files = [name for name in removed if name.endswith(".parquet")]
        return ForgottenHistory(removed_files=len(files), removed_entries=versions)


def _set_properties(opened: DeltaTable, table: Table) -> None:
    """Give a table that was written before a property existed what it lacks."""
    columns = opened.metadata().partition_columns
    wanted = {
        LOG_RETENTION: LOG_RETENTION_VALUE,
        **statistics_properties(table, partition_by=columns[0] if columns else None),
    }
    found = opened.metadata().configuration
    if lacking := {name: value for name, value in wanted.items() if found.get(name) != value}:
        opened.alter.set_table_properties(lacking)


def _cut_log(log: Folder, *, newest: int) -> int:
    """Remove a log's entries of the versions before the newest, oldest first; return how many.

    The newest has a checkpoint, so that nothing before it is needed.
    """
    old = sorted(
        (file.path for file in files_under(log) if _version(file.path) in range(newest)),
        key=_name,
    )
    remove_files(log, old)
    return sum(_entry(path) is not None for path in old)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _version(path: str) -> int | None:
    """Return the version that a file of a log is of; None of others."""
    number = _VERSION.match(_name(path))
    return int(number[1]) if number else None


def _entry(path: str) -> int | None:
    """Return the version that a file is the log's entry of; None of others."""
    is_entry = path.endswith(".json") and path[0].isdigit() and "/" not in path
    return _version(path) if is_entry else None


def _join_files(opened: DeltaTable) -> int:
    """Join small files; the note of the last write stays on the newest commit."""
    mark = last_write(opened).get("userMetadata")
    note = CommitProperties(custom_metadata={"userMetadata": mark}) if mark else None
    return int(opened.optimize.compact(commit_properties=note)["numFilesRemoved"])


def _readable(folder: Folder, pins: Collection[int], *, newest: int) -> dict[int, bool]:
    """Return of each pinned version whether all its files are there."""
    there = {file.path for file in files_under(folder)} if pins else set()
    return {
        pin: pin <= newest and (files := _files_of(folder, pin)) is not None and files <= there
        for pin in sorted(pins)
    }


def _files_of(folder: Folder, version: int) -> set[str] | None:
    """Return the data files of a version, or None if its log is not there any more."""
    try:
        return set(data_paths(open_delta(folder, version=version)))
    except DeltaError:
        return None


def _remove_checksums(folder: Folder) -> None:
    """Remove the checksum files, which Spark writes beside its data files, of those that went.

    On an object store it writes none.
    """
    if isinstance(folder, StoreFolder):
        return
    for checksum in folder.rglob(".*.parquet.crc"):
        if not checksum.with_name(checksum.name[1 : -len(".crc")]).exists():
            checksum.unlink()
