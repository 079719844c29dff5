"""`make update`: new days and late rows are taken in, and no other day is written."""

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.errors import UserError
from infra.lakehouse import Lakehouse
from infra.pending_days import load_pending, save_pending
from infra.platform import Platform
from jobs import update
from pipelines.tables import INTERACTIONS, RAW_EVENTS
from tests.assets.day_tables import DAY_TABLES, rows_of, run_days
from tests.mapped_log import platform_of, write_mapping, write_rows, write_songs

_START = date(2025, 3, 1)
_TIMEOUT_SECONDS = 600


def _day(number: int) -> date:
    return _START + timedelta(days=number - 1)


def _write_day(folder: Path, number: int, *, rows: int) -> None:
    shown = [
        {
            "time": f"{_day(number)}T{8 + row:02}:{number:02}:00Z",
            "user": f"u{row % 3}",
            "item": f"i{(row + number) % 5}",
            "click": int(row % 3 == 0),
        }
        for row in range(rows)
    ]
    file = folder / "log" / f"{_day(number)}.csv"
    write_rows(file, shown, names=("time", "user", "item", "click"))


def _load(platform: Platform) -> Lakehouse:
    """Write all days of the log into a new home; return its lake."""
    house, manifest, source = platform.lakehouse(), platform.manifest(), platform.source()
    days = manifest.start_date, manifest.end_date
    run_days(house, manifest, raw=source.events(*days), catalogue=source.items(), days=days)
    return house


def test_new_days_and_late_rows_end_as_a_rebuild_and_the_rest_is_not_written(
    spark: SparkSession,
    tmp_path: Path,
    checkout: Path,
    jar_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "log").mkdir()
    write_mapping(tmp_path)
    write_songs(tmp_path, 5)
    for number in (1, 2, 3, 4):
        _write_day(tmp_path, number, rows=5)
    platform = platform_of(tmp_path)
    house = _load(platform)
    files = _files_of(house)
    _write_day(tmp_path, 4, rows=6)  # one row came late
    _write_day(tmp_path, 5, rows=5)
    environ = {**os.environ, **platform.variables, "RANKLAKE_JARS": str(jar_cache)}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.update"],
        cwd=checkout, env=environ, capture_output=True, text=True, check=False,
        timeout=_TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"it ended on {_day(4)} and ends on {_day(5)}" in done.stdout
    assert f"{_day(4)} to {_day(5)} ..." in done.stdout
    after = _files_of(house)
    assert {day for day in after if after[day] != files.get(day)} == {_day(4), _day(5)}
    rebuilt = _load(platform_of(tmp_path, home="rebuilt"))
    for table in DAY_TABLES:
        assert rows_of(house, table) == rows_of(rebuilt, table), table.name

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert update.main([]) == 0
    assert capsys.readouterr().out == "ranklake: nothing is new, and nothing has changed\n"
    _write_day(tmp_path, 5, rows=0)
    assert update.main([]) == 2
    assert "put the lost days back" in capsys.readouterr().err
    assert rows_of(house, RAW_EVENTS) == rows_of(rebuilt, RAW_EVENTS)


def _files_of(house: Lakehouse) -> dict[date, set[str]]:
    """Return the files of each day of the interactions."""
    rows = house.read(INTERACTIONS).selectExpr("event_date", "input_file_name() file").distinct()
    found: dict[date, set[str]] = {}
    for row in rows.collect():
        found.setdefault(row.event_date, set()).add(row.file)
    return found


def test_days_are_joined_to_ranges_of_partitions() -> None:
    days = tuple(map(_day, (1, 2, 5, 7, 8)))
    assert update.runs_of_days(days, unit="day") == [
        (_day(1), _day(2)),
        (_day(5), _day(5)),
        (_day(7), _day(8)),
    ]
    months = (date(2024, 12, 30), date(2025, 1, 2), date(2025, 3, 9), date(2025, 3, 20))
    assert update.runs_of_days(months, unit="month") == [
        (date(2024, 12, 1), date(2025, 1, 31)),
        (date(2025, 3, 1), date(2025, 3, 31)),
    ]


def test_days_that_an_update_owes_are_kept_until_written(tmp_path: Path) -> None:
    file = tmp_path / "home" / "pending_days.json"
    assert load_pending(file) == ()
    save_pending(file, [_day(3), _day(1), _day(3)])
    assert load_pending(file) == (_day(1), _day(3))
    file.write_text("{")
    with pytest.raises(UserError, match="make update SINCE"):
        load_pending(file)


def test_an_unusable_day_and_an_empty_home_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path))
    assert update.main(["tomorrow"]) == 2
    assert "say make update SINCE=<YYYY-MM-DD>" in capsys.readouterr().err
    assert update.main([]) == 2
    assert "holds no tables; make them with make run" in capsys.readouterr().err
