"""`make migrate` and `make care` say what they did with each table, and what they cannot do."""

import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.lakehouse import Lakehouse
from infra.settings import Settings
from jobs import care, migrate
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_TEXT


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Point the process at a data home of its own."""
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path))
    return Settings.from_env()


def test_home_that_was_never_run_is_named(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrate.main() == 2
    told = capsys.readouterr().err
    assert f"nothing to migrate in {settings.workspace}; set RANKLAKE_HOME" in told
    monkeypatch.setattr(sys, "argv", ["care", "--dry-run"])
    assert care.main() == 2
    told = capsys.readouterr().err
    assert f"no table to care for in {settings.workspace}; set RANKLAKE_HOME" in told


def test_tables_of_today_are_left_alone(
    settings: Settings,
    spark: SparkSession,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.save_manifest(
        SourceManifest(
            source="simulated",
            actions=("click",),
            primary_action="click",
            positive_actions=("click",),
            surfaces=("home",),
            start_date=date(2026, 1, 1),
            end_date=date(2026, 1, 2),
            validation_start=datetime(2026, 1, 1, tzinfo=UTC),
            test_start=datetime(2026, 1, 2, tzinfo=UTC),
        )
    )
    frame = spark.createDataFrame([("a", 1, "words", "text", True)], ITEM_TEXT.schema)
    Lakehouse(settings.lake, spark).overwrite(ITEM_TEXT, frame)
    assert migrate.main() == 0
    assert capsys.readouterr().out == "item_text: contract 1, up to date, Delta version 0\n"
    monkeypatch.setattr(sys, "argv", ["care", "--dry-run"])
    assert care.main() == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("item_text: would remove 0 files of 0 bytes; version 0, 1 rows in 1 f")
    assert second.endswith("CREATE OR REPLACE TABLE AS SELECT: 1 rows")
