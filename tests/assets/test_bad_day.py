"""A bad day is stopped before it reaches the sequences, each kind by its own check."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from assets.day_checks import days_are_as_usual, raw_days_are_as_usual
from assets.events import cleaned_events, raw_events
from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
from assets.tables import (
    item_counters,
    item_days,
    item_versions,
    items,
    percentile_cuts,
    sequence_events,
    sequences,
    user_versions,
    users,
)
from infra.accepted_days import accept_day
from infra.platform import Platform
from pipelines.tables import INTERACTIONS, SEQUENCES
from tests.mapped_log import platform_of, write_mapping, write_rows, write_songs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CHECKS = [raw_days_are_as_usual, days_are_as_usual]
_CATALOGUE = [item_versions, items, user_versions, users]
_TABLES = [item_days, *_CATALOGUE, item_counters, percentile_cuts, sequence_events, sequences]
_GRAPH = [raw_events, cleaned_events, *_CHECKS, *_TABLES]
_DAYS = EVENT_PARTITIONS.get_partition_keys()[:6]
_USERS, _SHOWN, _ITEMS = 60, 5, 12
_Row = dict[str, str]


def _good_day(number: int) -> list[_Row]:
    """Return a day on which each user is shown five items and clicks on one."""
    return [
        {
            "time": f"{_DAYS[number]}T{9 + shown * 3:02}:{user % 60:02}:{number:02}Z",
            "user": f"u{user}",
            "item": f"i{(user + shown * 5 + number) % _ITEMS}",
            "click": str(int(shown == (user + number) % _SHOWN)),
        }
        for user in range(_USERS)
        for shown in range(_SHOWN)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log of six good days, one file per day."""
    folder = tmp_path_factory.mktemp("bad-day")
    (folder / "log").mkdir()
    write_mapping(folder)
    write_songs(folder, _ITEMS)
    for number, day in enumerate(_DAYS):
        write_rows(folder / "log" / f"{day}.csv", _good_day(number))
    return folder


@pytest.fixture(scope="module")
def platform(home: Path, spark: "SparkSession") -> Iterator[Platform]:
    """Return the platform after a run over all days."""
    platform = platform_of(home)
    done = dg.materialize(
        _GRAPH,
        resources={"platform": platform},
        tags={RANGE_START: _DAYS[0], RANGE_END: _DAYS[-1]},
        raise_on_error=False,
    )
    assert done.success, _messages(done)
    yield platform


def _messages(done: dg.ExecuteInProcessResult) -> str:
    found = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    failed = [check for check in done.get_asset_check_evaluations() if not check.passed]
    return " ".join(
        [*(str(event.message) for event in found), *(str(c.description) for c in failed)]
    )


def _rerun(
    platform: Platform, *, only: dg.AssetChecksDefinition | None = None
) -> dg.ExecuteInProcessResult:
    """Run the graph, or one check alone, over the last two days."""
    return dg.materialize(
        _GRAPH,
        resources={"platform": platform},
        selection=None if only is None else dg.AssetSelection.checks(only),
        tags={RANGE_START: _DAYS[4], RANGE_END: _DAYS[5]},
        raise_on_error=False,
    )


def _shifted(rows: list[_Row]) -> list[_Row]:
    return [row | {"click": str(int(n % 5 != 0))} for n, row in enumerate(rows)]


def _doubled(rows: list[_Row]) -> list[_Row]:
    return [*rows, *rows]


def _broken(rows: list[_Row]) -> list[_Row]:
    return [row | {"item": f"#{row['item']}"} if n % 3 == 0 else row for n, row in enumerate(rows)]


def _unnamed(rows: list[_Row]) -> list[_Row]:
    return [row | {"user": ""} if n % 3 == 0 else row for n, row in enumerate(rows)]


def _unnamed_morning(rows: list[_Row]) -> list[_Row]:
    return [row | {"time": re.sub(r"T\d\d", "T09", row["time"])} for row in _unnamed(rows)]


@pytest.mark.parametrize(
    ("plants", "messages"),
    [
        (
            (_doubled, _unnamed_morning),
            (
                r"times the rows .*; not so on 2025-03-07 2;",
                r"rows without an id .*; not so on 2025-03-08 0\.333;",
                r"newest event is at most 6 hours .*; not so on 2025-03-08 5\.\d+e\+04;",
            ),
        ),
        (
            (_broken, _shifted),
            (
                r"rows of unknown items .*; not so on 2025-03-07 0\.333;",
                r"rate of click .*; not so on 2025-03-08;",
            ),
        ),
    ],
    ids=["raw", "cleaned"],
)
def test_bad_days_fail_their_check_and_leave_the_sequences_as_they_were(
    home: Path,
    platform: Platform,
    plants: tuple[Callable[[list[_Row]], list[_Row]], ...],
    messages: tuple[str, ...],
) -> None:
    before = platform.lakehouse().version(SEQUENCES)
    for number, plant in enumerate(plants, start=4):
        write_rows(home / "log" / f"{_DAYS[number]}.csv", plant(_good_day(number)))
    done = _rerun(platform)
    assert not done.success
    failed = [check for check in done.get_asset_check_evaluations() if not check.passed]
    assert len(failed) == 1
    for message in messages:
        assert re.search(message, str(failed[0].description)), failed[0].description
    assert platform.lakehouse().version(SEQUENCES) == before


def test_accepted_bad_days_pass(platform: Platform) -> None:
    """The days are those that the test before has left behind."""
    assert not _rerun(platform, only=days_are_as_usual).success
    for day in _DAYS[4:]:
        accept_day(platform.settings().quality, day=day, why="everything was free")
    assert _rerun(platform, only=days_are_as_usual).success


def test_a_lost_row_is_found_on_accepted_days_too(platform: Platform) -> None:
    house = platform.lakehouse()
    one = house.read(INTERACTIONS).where(f"event_date = DATE'{_DAYS[4]}'").limit(1)
    event = one.collect()[0].event_id
    listed = house.listed([(event,)], "event_id string")
    lost = house.delete_rows(INTERACTIONS, "old.event_id = listed.event_id", listed=listed)
    assert lost.num_rows == 1
    done = _rerun(platform, only=days_are_as_usual)
    assert not done.success
    assert re.search(r"every raw row was kept or rejected; not so on 2025-03-07;", _messages(done))
