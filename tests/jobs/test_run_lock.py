"""Runs share a lock that an erasure has alone; a process that dies holds it no more."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import dagster as dg
import pytest

from infra.errors import UserError
from infra.platform import Platform
from infra.run_lock import holders, run_lock
from infra.settings import Settings
from jobs import care, forget, migrate, refit, run, update
from tests.pipelines.sequence_rows import MANIFEST

_HOLDER = """
import sys
from pathlib import Path
from infra.run_lock import run_lock
with run_lock(Path(sys.argv[1]), what=sys.argv[2], alone=sys.argv[2] == "make forget"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a data home that has been run, which are the process's own."""
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RANKLAKE_SUPPRESSION_KEY", str(tmp_path / "key"))
    monkeypatch.setattr(sys, "argv", ["jobs"])
    monkeypatch.setattr(sys, "stdin", StringIO("u1\n"))
    settings = Settings.from_env()
    settings.save_manifest(MANIFEST)
    return settings


@contextmanager
def _held(checkout: Path, workspace: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    command = [sys.executable, "-c", _HOLDER, str(workspace), what]
    with subprocess.Popen(
        command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_erasure_beside_a_run_says_who_runs_and_does_nothing(
    settings: Settings, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _held(checkout, settings.workspace, "make run") as holder:
        assert forget.main([]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"is in use by make run (process {holder.pid}, since " in line
        assert line.endswith("wait for that to end, then repeat the command")
        assert forget.main(["soon"]) == 2
        assert "WAIT is 'soon'; say a number of seconds" in capsys.readouterr().err
        assert not settings.suppressed_users_file.exists()


def test_erasure_waits_as_long_as_told_and_a_killed_run_holds_nothing(
    settings: Settings, checkout: Path
) -> None:
    workspace = settings.workspace
    with (
        _held(checkout, workspace, "make update") as holder,
        run_lock(workspace, what="make run"),  # runs share it
    ):
        assert len(holders(workspace)) == 2
        with (
            pytest.raises(UserError, match=r"in use after 0 s by make update .*, make run "),
            run_lock(workspace, what="make forget", alone=True, wait_seconds=0.3),
        ):
            pytest.fail("an erasure beside a run")
    with _held(checkout, workspace, "make run") as holder:
        threading.Timer(0.3, holder.kill).start()
        with run_lock(workspace, what="make forget", alone=True, wait_seconds=60):
            (own,) = holders(workspace)
            assert own.startswith("make forget ")
    assert holders(workspace) == []


def _entry_points() -> dict[str, Callable[[], int]]:
    return {
        "run": run.main,
        "update": lambda: update.main([]),
        "refit": lambda: refit.main(["2024-01-01", "", "a reason"]),
        "care": care.main,
        "migrate": migrate.main,
        "forget": lambda: forget.main([]),
    }


def test_nothing_is_started_beside_an_erasure(
    settings: Settings, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @dg.asset
    def step(platform: Platform) -> None:
        pytest.fail("a step beside an erasure")

    with _held(checkout, settings.workspace, "make forget") as holder:
        for name, main in _entry_points().items():
            assert main() == 2, name
            (line,) = capsys.readouterr().err.splitlines()
            assert f"in use by make forget (process {holder.pid}" in line
        with pytest.raises(dg.DagsterError) as caught:  # as a run of the web UI would
            dg.materialize([step], resources={"platform": Platform()})
        assert isinstance(caught.value.__cause__, UserError)
        assert not settings.dagster_home.exists()


def test_step_of_a_run_is_named_and_lets_go_at_its_end(settings: Settings) -> None:
    seen = []

    @dg.asset
    def step(platform: Platform) -> None:
        seen.extend(holders(platform.settings().workspace))

    assert dg.materialize([step], resources={"platform": Platform()}).success
    assert len(seen) == 1 and seen[0].startswith("a run of __ephemeral_asset_job__ (")
    assert holders(settings.workspace) == []
