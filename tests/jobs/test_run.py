"""The command's own preparations."""

from pathlib import Path

import pytest
from dagster._core.nux import get_has_seen_nux

from infra.settings import Settings
from jobs.run import prepare_dagster_home


def test_dagster_home_asks_nobody_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({"RANKLAKE_HOME": str(tmp_path)})
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    prepare_dagster_home(settings)
    prepare_dagster_home(settings)
    assert "enabled: false" in (settings.dagster_home / "dagster.yaml").read_text()
    assert get_has_seen_nux()
