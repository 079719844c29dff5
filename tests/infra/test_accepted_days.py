"""The record of accepted days, by the command that a user runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.accepted_days import accept_day, accepted_days
from infra.errors import UserError
from infra.settings import Settings
from tests.infra.healthy_rows import MANIFEST


def test_a_day_is_recorded_once_with_its_newest_reason(tmp_path: Path) -> None:
    accept_day(tmp_path, day="2026-01-05", why="outage")
    accept_day(tmp_path, day="2026-01-01", why="holiday")
    accept_day(tmp_path, day="2026-01-05", why=" launch ")
    found = accepted_days(tmp_path)
    assert [(entry.day, entry.why) for entry in found] == [
        ("2026-01-01", "holiday"),
        ("2026-01-05", "launch"),
    ]


def test_no_record_is_no_accepted_day(tmp_path: Path) -> None:
    assert accepted_days(tmp_path) == ()


@pytest.mark.parametrize(
    ("day", "why", "message"),
    [("5 January", "holiday", "YYYY-MM-DD"), ("2026-01-05", " ", "WHY=")],
)
def test_unusable_input_is_refused_and_leaves_no_record(
    tmp_path: Path, day: str, why: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        accept_day(tmp_path, day=day, why=why)
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "accepted_days.json").write_text("[{}]")
    with pytest.raises(UserError, match=r"accepted_days\.json cannot be read"):
        accepted_days(tmp_path)


def test_the_command_records_the_day_in_the_home_of_the_source(
    tmp_path: Path, checkout: Path
) -> None:
    settings = Settings.from_env({"RANKLAKE_HOME": str(tmp_path)})
    command = [sys.executable, "-m", "jobs.accept_day", "2026-01-05", "holiday"]
    environ = {"RANKLAKE_HOME": str(tmp_path), "PYTHONPATH": str(checkout)}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=checkout, env=environ, capture_output=True, text=True, check=False
        )

    refused = run()
    assert refused.returncode == 2
    assert "nothing has run" in refused.stderr
    settings.save_manifest(MANIFEST)
    assert run().returncode == 0
    record = json.loads((settings.quality / "accepted_days.json").read_text())
    assert [(entry["day"], entry["why"]) for entry in record] == [("2026-01-05", "holiday")]
