"""A forgotten user is in no file of the data home and no rebuild brings them back."""

import json
import sys
from collections.abc import Iterator
from datetime import date
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
from infra.delta_arrow import arrow, exists, open_table, table_path
from infra.errors import UserError
from infra.forgetting import forget_users
from infra.platform import Platform
from infra.suppression import ERASED, ERASING, open_list
from jobs import forget
from pipelines.contract import Table
from pipelines.erasure import is_personal
from pipelines.tables import ALL_TABLES, INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS
from tests.jobs.id_search import files_with
from tests.local_folder import local
from tests.mapped_log import platform_of, write_mapping, write_rows, write_songs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

USER = "zq-forget-7f3a9"
NEIGHBOUR = f"{USER}0"  # has the user's id as a prefix
DAYS = EVENT_PARTITIONS.get_partition_keys()[:4]
TODAY = date(2026, 5, 1)
PERSONAL = [table for table in ALL_TABLES if is_personal(table)]


def _rows() -> list[dict[str, str]]:
    """Return a log in which the user has rows of every fate."""
    rows = [
        {
            "event": f"{user}:{day}:{shown}",
            "time": f"{day}T{8 + 2 * shown:02}:00:00Z",
            "user": user,
            "item": f"i{(shown + place) % 5}",
            "click": str(shown % 2),
            "note": "",
        }
        for day in DAYS
        for place, user in enumerate((USER, NEIGHBOUR, "ann", "bob"))
        for shown in range(3)
    ]
    own, other = rows[0], rows[3]
    return [
        *rows,
        own,  # a copy
        own | {"event": f"{USER}:gone", "item": "unknown"},
        own | {"event": "torn", "time": "yesterday"},
        own | {"event": "e7", "user": "", "time": "now", "note": f"by <{USER}>"},
        own | {"event": f"{USER}:nobody", "user": ""},
        other | {"event": "torn too", "user": "", "time": "now", "note": f"by <{NEIGHBOUR}>"},
    ]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession") -> Iterator[Platform]:
    """Return a data home of the log, beside it the key."""
    folder = tmp_path_factory.mktemp("forget")
    users = '[user]\nfile = "users.csv"\nid = "user"\ntext = ["about"]\n'
    users += '[user.valid_from]\ncolumn = "since"\nformat = "iso"\n'
    write_mapping(folder, columns='event = "event"', tables=users)
    write_rows(folder / "log.csv", _rows())
    write_songs(folder, 5)
    names = (USER, NEIGHBOUR, "ann")
    profiles = [{"user": name, "about": "likes boats", "since": ""} for name in names]
    profiles += [{"user": USER, "about": "likes trains", "since": DAYS[1]}]
    write_rows(folder / "users.csv", profiles)
    key = str(folder / "keys" / "suppression.key")
    yield platform_of(folder, log="log.csv", RANKLAKE_SUPPRESSION_KEY=key)


def _materialise(platform: Platform, *last: str, **tags: str) -> dg.ExecuteInProcessResult:
    """Make tables and what they need."""
    from assets import events, tables, tokens

    home = platform.settings().dagster_home
    home.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        return dg.materialize(
            cast("Any", dg.load_assets_from_modules([events, tables, tokens])),
            resources={"platform": platform},
            selection=dg.AssetSelection.assets(*last).upstream().required_multi_asset_neighbors(),
            tags={RANGE_START: DAYS[0], RANGE_END: DAYS[-1], **tags},
            instance=instance,
        )


def _all_rows(platform: Platform) -> dict[str, list[dict[str, Any]]]:
    lake = platform.settings().lake
    return {
        table.name: sorted(arrow(lake, table).to_pylist(), key=repr)
        for table in PERSONAL
        if exists(lake, table)
    }


def _is_users(row: dict[str, Any]) -> bool:
    return USER in repr(row).replace(NEIGHBOUR, "")


@pytest.fixture(scope="module")
def before(platform: Platform) -> dict[str, list[dict[str, Any]]]:
    """Make the tables, plant the id in other files, begin an erasure and leave it half done."""
    _materialise(
        platform, "sequences", "member_prompts", note=f"asked by {USER}, not by {NEIGHBOUR}"
    )
    settings = platform.settings()
    before = _all_rows(platform)
    for name in ("results/x.json", "quality/uncommitted/x.json", "reports/x.html", "training/x"):
        path = settings.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"of": f"{USER},{NEIGHBOUR}"}))
    users = open_list(settings)
    users.add([USER], today=TODAY)
    users.mark([USER], ERASING)
    listed = platform.lakehouse().listed([(USER,)], "user_id string")
    condition = "old.user_id = listed.user_id"
    half = platform.lakehouse().delete_rows(INTERACTIONS, condition, listed=listed)
    assert half.num_rows == 3 * len(DAYS)
    return before


@pytest.fixture(scope="module")
def told(
    platform: Platform, before: dict[str, list[dict[str, Any]]], tmp_path_factory: Any
) -> list[str]:
    """Forget the user."""
    assert {name for name, rows in before.items() if any(map(_is_users, rows))} == set(before)
    assert files_with(platform.settings().home, USER, but_in=NEIGHBOUR)
    for table in PERSONAL:  # neither statistics nor the condition of the deletion name the user
        log = local(table_path(platform.settings().lake, table)) / "_delta_log"
        assert files_with(log, USER, but_in=NEIGHBOUR) == []
    return forget.describe(forget_users(platform, [USER], today=TODAY), num_users=1)


def test_id_is_in_no_file_of_the_data_home(platform: Platform, told: list[str]) -> None:
    assert files_with(platform.settings().home, USER, but_in=NEIGHBOUR) == []
    assert files_with(platform.settings().home, NEIGHBOUR)
    users = open_list(platform.settings())
    assert (users.state(USER), users.state(NEIGHBOUR)) == (ERASED, None)


def test_rows_of_everybody_else_are_the_same(
    platform: Platform, before: dict[str, list[dict[str, Any]]], told: list[str]
) -> None:
    kept = {name: [row for row in rows if not _is_users(row)] for name, rows in before.items()}
    assert _all_rows(platform) == kept
    assert all(any(NEIGHBOUR in repr(row) for row in rows) for rows in kept.values())
    raw = platform.lakehouse().read(RAW_EVENTS)  # Spark reads a log that was cut
    assert raw.count() == len(kept["raw_events"])


def test_old_versions_are_gone_and_what_was_done_is_told(
    platform: Platform, before: dict[str, list[dict[str, Any]]], told: list[str]
) -> None:
    assert told[0] == "1 users suppressed, 1 of them found"
    rows = {cells[0]: int(cells[1]) for line in told if len(cells := line.split()) == 4}
    gone = {name: sum(map(_is_users, found)) for name, found in before.items()}
    assert rows == gone | {"interactions": 0}  # deleted by the erasure that was interrupted
    assert gone["raw_events"] == 3 * len(DAYS) + 5
    assert not any(USER in line for line in told)
    for table in PERSONAL:
        newest = open_table(platform.settings().lake, table).version()
        with pytest.raises(Exception, match=r"(?i)version|not found|no files in log|no such file"):
            open_table(platform.settings().lake, table, version=newest - 1)


def test_log_keeps_no_statistics_of_texts_and_of_user_numbers(
    platform: Platform, told: list[str]
) -> None:
    for table in PERSONAL:
        kinds = dict(table.columns)
        log = local(table_path(platform.settings().lake, table)) / "_delta_log"
        found = [name for stats in _statistics(log) for name in stats.get("minValues", {})]
        assert all(kinds[name] != "string" and name != "user_index" for name in found), table.name
        assert all(stats["numRecords"] > 0 for stats in _statistics(log)), table.name


def _statistics(log: Path) -> list[dict[str, Any]]:
    rows = [
        row for path in log.glob("*.checkpoint.parquet") for row in pq.read_table(path).to_pylist()
    ]
    return [json.loads(row["add"]["stats"]) for row in rows if row["add"]]


def test_rebuild_without_its_key_stops_and_with_it_brings_nobody_back(
    platform: Platform, before: dict[str, list[dict[str, Any]]], told: list[str]
) -> None:
    key = platform.settings().suppression_key_file
    key.rename(key.with_suffix(".away"))
    with pytest.raises(UserError, match=r"1 users are suppressed in .* is missing"):
        platform.source()
    key.with_suffix(".away").rename(key)
    done = _materialise(platform, "users")
    metadata = done.asset_materializations_for_node("raw_events")[0].metadata
    assert metadata["suppressed_rows"].value == 3 * len(DAYS) + 5
    assert files_with(platform.settings().home, USER, but_in=NEIGHBOUR) == []
    assert len(_all_rows(platform)["raw_events"]) == len(
        [row for row in before["raw_events"] if not _is_users(row)]
    )
    assert exists(platform.settings().lake, REJECTED_EVENTS)


def test_unknown_user_is_suppressed_and_nothing_else_is_touched(
    platform: Platform, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = _versions(platform)
    done = forget_users(platform, ["nobody-knows-me"], today=TODAY)
    lines = forget.describe(done, num_users=1)
    assert lines[:2] == [
        "1 users suppressed, 0 of them found",
        "nothing was found: no table holds a row of them",
    ]
    assert _versions(platform) == versions
    assert open_list(platform.settings()).state("nobody-knows-me") == ERASED


def _versions(platform: Platform) -> dict[str, int]:
    tables: list[Table] = [t for t in ALL_TABLES if exists(platform.settings().lake, t)]
    return {t.name: open_table(platform.settings().lake, t).version() for t in tables}


def test_command_without_a_user_says_what_to_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("\n \n"))
    assert forget.main([]) == 2
    assert "no user is named; say make forget USER=<id>" in capsys.readouterr().err
