"""The command's own preparations."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity
from dagster._core.nux import get_has_seen_nux
from dagster._core.run_coordinator import QueuedRunCoordinator

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


def test_runs_of_the_web_ui_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({"RANKLAKE_HOME": str(tmp_path)})
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    settings.dagster_home.mkdir(parents=True)
    config = settings.dagster_home / "dagster.yaml"
    config.write_text("telemetry:\n  enabled: false\n")  # as earlier versions wrote it
    prepare_dagster_home(settings)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        granularity = instance.get_concurrency_config().pool_config.pool_granularity
        assert granularity == PoolGranularity.RUN
        limits = instance.event_log_storage.get_pool_limits()
        assert [(limit.name, limit.limit) for limit in limits] == [("memory", 1)]
        instance.event_log_storage.set_concurrency_slots("memory", 2)
    prepare_dagster_home(settings)
    with dg.DagsterInstance.get() as instance:
        assert [limit.limit for limit in instance.event_log_storage.get_pool_limits()] == [2]
