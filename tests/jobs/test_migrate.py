"""`make migrate` says what it did with each table, and what it cannot do."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.lakehouse import Lakehouse
from infra.settings import Settings
from jobs.migrate import main
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ITEM_TEXT


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Point the process at a data home of its own."""
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path))
    return Settings.from_env()


def test_home_that_was_never_run_is_named(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main() == 2
    assert (
        f"nothing to migrate in {settings.workspace}; set RANKLAKE_HOME" in capsys.readouterr().err
    )


def test_tables_of_today_are_left_alone(
    settings: Settings, spark: SparkSession, capsys: pytest.CaptureFixture[str]
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
    assert main() == 0
    assert capsys.readouterr().out == "item_text: contract 1, up to date, Delta version 0\n"
