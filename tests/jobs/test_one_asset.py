"""The commands that make one asset: bad input is one line and makes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import leaderboard, search
from jobs.one_asset import AssetCall, asset_command
from pipelines.sources.errors import SourceError


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (search.main, ["forest"], "no model 'forest' to search"),
        (search.main, ["ranker", "1", "1"], "a population search needs at least 2 trials"),
        (leaderboard.main, ["soon"], "BUDGET_MINUTES must be a number of minutes"),
    ],
)
def test_bad_input_is_told_in_a_line(
    main: Callable[[], int],
    arguments: list[str],
    message: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path / "home"))
    assert main() == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ranklake: {message}") and told.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_source_that_cannot_be_read_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    def read() -> AssetCall:
        raise SourceError("no log at /nowhere")

    assert asset_command(read, lambda call: None) == 2
    assert capsys.readouterr().err == "ranklake: no log at /nowhere\n"
