"""The assets make the same tables on an object store, and a user can be forgotten there."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
from infra.delta_arrow import arrow, exists
from infra.errors import UserError
from infra.forgetting import forget_users
from infra.lake_location import StoreFolder
from infra.platform import Platform
from jobs.care import care_for_tables
from pipelines.tables import ALL_TABLES, USERS
from tests.infra.s3_server import S3Server, s3_server, server_program, switch_versioning_on
from tests.jobs.id_search import files_with

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SIZE = {"RANKLAKE_FEED_USERS": "40", "RANKLAKE_FEED_DAYS": "6"}
_DAYS = EVENT_PARTITIONS.get_partition_keys()[:6]


def _platform(folder: Path, **more: str) -> Platform:
    common = {
        "RANKLAKE_HOME": str(folder / "home"),
        "RANKLAKE_PROFILE": "test",
        "RANKLAKE_SUPPRESSION_KEY": str(folder / "keys" / "suppression.key"),
    }
    return Platform(variables={**common, **_SIZE, **more})


def _materialise(platform: Platform) -> None:
    """Make the tables of events and features."""
    from assets import events, tables

    steps: Any = [events.raw_events, events.cleaned_events, tables.item_days]
    steps += [tables.item_versions, tables.items, tables.user_versions, tables.users]
    steps += [tables.item_counters, tables.percentile_cuts]
    steps += [tables.sequence_events, tables.sequences]
    home = platform.settings().dagster_home
    home.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        dg.materialize(
            steps,
            resources={"platform": platform},
            tags={RANGE_START: _DAYS[0], RANGE_END: _DAYS[-1]},
            instance=instance,
        )


def _tables(platform: Platform) -> dict[str, list[str]]:
    lake = platform.settings().lake
    return {
        table.name: sorted(map(repr, arrow(lake, table).to_pylist()))
        for table in ALL_TABLES
        if exists(lake, table)
    }


@pytest.fixture(scope="module")
def stored(
    s3: S3Server, spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory
) -> Platform:
    """Return a platform whose lake is on the store, with its tables."""
    platform = _platform(tmp_path_factory.mktemp("stored"), **s3.environ)
    _materialise(platform)
    return platform


def test_tables_equal_those_of_a_folder(stored: Platform, tmp_path: Path) -> None:
    local = _platform(tmp_path)
    _materialise(local)
    wanted = _tables(local)
    assert len(wanted) == 12 and all(
        rows for name, rows in wanted.items() if name != "rejected_events"
    )
    assert _tables(stored) == wanted


def test_lake_of_other_options_is_refused(stored: Platform, s3: S3Server, tmp_path: Path) -> None:
    other = _platform(tmp_path, **s3.environ, RANKLAKE_TIMEZONE="Asia/Shanghai")
    with pytest.raises(UserError, match=r"lakes/simulated was made from another source .*Shangh"):
        other.manifest()
    assert other.settings().load_manifest() is None


def test_no_record_of_a_run_holds_a_secret(stored: Platform, s3: S3Server) -> None:
    home = stored.settings().home
    assert isinstance(stored.settings().lake, StoreFolder)
    assert not (stored.settings().workspace / "lake").exists()
    assert files_with(home, "materializ")  # the search sees Dagster's records
    assert files_with(home, s3.secret) == []


def test_care_and_erasure_reach_the_store(stored: Platform, s3: S3Server) -> None:
    lake = stored.settings().lake
    before = _tables(stored)
    user_id = arrow(lake, USERS, columns=("user_id",))["user_id"].to_pylist()[0]
    cared = care_for_tables(stored)
    assert [each.table for each in cared] == list(before)
    assert files_with(s3.folder / "lake" / "lakes" / "simulated", user_id)
    done = forget_users(stored, [user_id], today=date(2026, 3, 1))
    assert done.found == 1
    assert files_with(s3.folder, user_id) == []
    kept = {name: [row for row in rows if user_id not in row] for name, rows in before.items()}
    assert _tables(stored) == kept
    assert kept["interactions"] and kept["interactions"] != before["interactions"]


def test_bucket_that_keeps_versions_forgets_nobody(tmp_path: Path) -> None:
    with s3_server(server_program(), tmp_path, versions=tmp_path / "versions") as server:
        switch_versioning_on(server)
        platform = _platform(tmp_path, **server.environ)
        with pytest.raises(UserError, match=r"keeps earlier versions .*suspend its versioning"):
            forget_users(platform, ["somebody"], today=date(2026, 3, 1))
    assert not platform.settings().suppressed_users_file.exists()
