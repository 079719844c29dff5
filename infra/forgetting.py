"""Forget users: take them out of the tables, their history, the models' records and the files.

The order makes a killed erasure one that can be repeated: the users are suppressed first, so that
no run brings them back; models are tagged while the versions that they were trained on can still
be looked at; rows go before old files, files before the log; the list says "erased" last. What
holds no user is left alone, and so are aggregates over items, in which nobody can be told.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from infra.delta_arrow import data_files, exists, table_path
from infra.errors import UserError
from infra.free_files import Cleaned, clean_files, is_distinctive, is_part_of_database
from infra.input_examples import drop_input_examples
from infra.lake_location import Folder, StoreFolder
from infra.object_store import keeps_versions
from infra.platform import Platform
from infra.run_lock import run_lock
from infra.settings import Settings
from infra.suppression import ERASED, ERASING, SuppressionList, open_list
from infra.table_care import forget_history, num_versions
from infra.trained_versions import mark_erased, trained_versions
from infra.user_files import holding_files, holds_user
from infra.write_lock import lake_lock
from pipelines.contract import Table
from pipelines.erasure import (
    free_text,
    has_free_text,
    is_personal,
    named_texts,
    owner,
    passages,
)
from pipelines.tables import ALL_TABLES

if TYPE_CHECKING:
    from infra.lakehouse import Lakehouse

Holding = dict[str, dict[str, set[str]]]  # table name -> data file -> users that it holds


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgottenRows:
    """Say what went from one table.

    Attributes:
        table: Name of the table.
        rows: Rows deleted from its newest version.
        files: Data files removed.
        versions: Versions that there were; none of them can be read any more.
    """

    table: str
    rows: int
    files: int
    versions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """Say what an erasure did; no user's id is in it.

    Attributes:
        found: How many of the users something was found of, here or before it was interrupted.
        tables: What went from each table that held one.
        models: Model versions, as "name version", that were tagged.
        examples: Stored models that lost their input example.
        checkpoints: Files of trainings that were removed.
        reports: Whether the pages of the reports were removed.
        cleaned: Other files that named a user.
        unsearched: Users whose id is too short or too plain to be looked for in such files.
        unfinished: Other users whose erasure was begun and has not ended.
    """

    found: int
    tables: tuple[ForgottenRows, ...]
    models: tuple[str, ...]
    examples: int
    checkpoints: int
    reports: bool
    cleaned: Cleaned
    unsearched: int
    unfinished: int


def forget_users(
    platform: Platform, user_ids: Collection[str], *, today: date, wait_seconds: float = 0.0
) -> Forgotten:
    """Suppress users and remove what a data home's source holds of them.

    No run goes on meanwhile: the lock of the source's folder is held alone.

    Args:
        platform: Where the data home is.
        user_ids: The users, as the source names them.
        today: Written into the list and the models' tags.
        wait_seconds: How long to wait for runs that are going on.

    Raises:
        UserError: If a run is still going on, the key of the suppression list is missing, a
            database is in use, a JVM that outlived its run has brought a user back meanwhile, or
            the lake's bucket keeps what is removed.
    """
    settings = platform.settings()
    _refuse_if_kept(settings.lake)
    with (
        run_lock(settings.workspace, what="make forget", alone=True, wait_seconds=wait_seconds),
        lake_lock(settings.lake, "forget"),
    ):
        users = open_list(settings)
        users.add(user_ids, today=today)
        resumed = {user_id for user_id in user_ids if users.state(user_id) == ERASING}
        holding = _holding(settings.lake, user_ids)
        found = resumed.union(*(held for files in holding.values() for held in files.values()))
        users.mark(found, ERASING)
        models = _mark_models(platform, holding, today=today, resumed=bool(resumed))
        examples = drop_input_examples(settings.mlflow_artifacts) if found else 0
        tables = _forget_tables(platform, holding, found, every=bool(resumed))
        checkpoints = _remove_folder(settings.ray_folder) if found else 0
        reports = bool(found) and _remove_folder(settings.reports) > 0
        cleaned = _clean(settings, user_ids)
        _refuse_if_back(settings.lake, user_ids)
        if not cleaned.left:
            users.mark(user_ids, ERASED)
        return Forgotten(
            found=len(found),
            tables=tables,
            models=models,
            examples=examples,
            checkpoints=checkpoints,
            reports=reports,
            cleaned=cleaned,
            unsearched=sum(not is_distinctive(user_id) for user_id in user_ids),
            unfinished=_others_unfinished(users, user_ids),
        )


def _personal_tables(lake: Folder) -> list[Table]:
    return [table for table in ALL_TABLES if is_personal(table) and exists(lake, table)]


def _holding(lake: Folder, user_ids: Collection[str]) -> Holding:
    found = {
        table.name: holding_files(table_path(lake, table), table, user_ids)
        for table in _personal_tables(lake)
    }
    return {name: files for name, files in found.items() if files}


def _mark_models(
    platform: Platform, holding: Holding, *, today: date, resumed: bool
) -> tuple[str, ...]:
    """Tag the model versions whose training data held a user, or may have: its files are gone."""
    settings = platform.settings()
    if not (holding or resumed) or not settings.mlflow_artifacts.exists():
        return ()
    client, marked = platform.registry().client(), []
    personal = {table.name: table for table in _personal_tables(settings.lake)}
    for trained in trained_versions(client):
        tables = [
            name
            for name, version in trained.tables.items()
            if name in personal and (resumed or name in holding)
            if holds_user(
                table_path(settings.lake, personal[name]), version, holding=holding.get(name, {})
            )
        ]
        if tables:
            mark_erased(client, trained, tables, today=today)
            marked.append(f"{trained.name} {trained.version}")
    return tuple(sorted(marked))


def _forget_tables(
    platform: Platform, holding: Holding, found: Collection[str], *, every: bool
) -> tuple[ForgottenRows, ...]:
    """Delete rows, then old files and the log; of every table if an erasure was interrupted."""
    lake = platform.settings().lake
    done = []
    for table in _personal_tables(lake):
        files = holding.get(table.name, {})
        if not (files or every):
            continue
        versions = num_versions(lake, table)
        is_current = not data_files(table_path(lake, table)).isdisjoint(files)
        rows = _delete(platform.lakehouse(), table, found) if is_current else 0
        history = forget_history(lake, table)
        done.append(
            ForgottenRows(
                table=table.name,
                rows=rows,
                files=history.removed_files,
                versions=versions,
            )
        )
    return tuple(done)


def _delete(lakehouse: "Lakehouse", table: Table, user_ids: Collection[str]) -> int:
    """Delete the rows of users, and those whose free text names one."""
    owners = [(user_id,) for user_id in sorted(user_ids)]
    same = f"{owner(table, row='old')} = listed.user_id"
    rows = lakehouse.delete_rows(table, same, listed=lakehouse.listed(owners, "user_id string"))
    if not has_free_text(table):
        return rows.num_rows
    texts = {(each.text, each.pieces) for user_id in user_ids for each in named_texts(user_id)}
    found = passages(free_text(table, row="old"), pieces="listed.pieces")
    named = lakehouse.delete_rows(
        table,
        f"array_contains({found}, listed.text)",
        listed=lakehouse.listed(sorted(texts), "text string, pieces int"),
    )
    return rows.num_rows + named.num_rows


def _clean(settings: Settings, user_ids: Collection[str]) -> Cleaned:
    """Take the users out of what is no table: logs, databases, results, records."""
    workspace, records = settings.workspace, settings.suppressed_users_file
    files = [
        path
        for path in (*workspace.rglob("*"), *settings.spark_folder.glob("*.log"))
        if path.is_file() and settings.lake not in path.parents and path != records
    ]
    return clean_files(
        [path for path in files if not is_part_of_database(path)],
        user_ids,
        kept=(settings.source_file, settings.models, settings.mlflow_artifacts),
        redacted=(settings.quality, workspace / "results", workspace / "cut_refits.jsonl"),
    )


def _remove_folder(folder: Path) -> int:
    files = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder, ignore_errors=True)
    return files


def _refuse_if_back(lake: Folder, user_ids: Collection[str]) -> None:
    if holding := _holding(lake, user_ids):
        raise UserError(
            f"rows of the users are in {', '.join(holding)} again: a run that had begun before "
            "wrote them",
            remedy="wait for the run to end, then repeat the command",
        )


def _refuse_if_kept(lake: Folder) -> None:
    if isinstance(lake, StoreFolder) and keeps_versions(lake):
        raise UserError(
            f"the bucket of {lake} keeps earlier versions of its objects, so that nobody can be "
            "forgotten there",
            remedy="suspend its versioning, let a rule of the bucket expire the versions that are "
            "not current, then repeat the command",
        )


def _others_unfinished(users: SuppressionList, user_ids: Collection[str]) -> int:
    return users.unfinished - sum(users.state(user_id) != ERASED for user_id in user_ids)
