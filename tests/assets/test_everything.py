"""The whole graph in its smallest form, by the command that a user runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from assets.training import RecipeConfig
from infra.delta_arrow import arrow, table_path
from infra.platform import Platform
from infra.settings import Settings
from ml.ranking.sequence_ranker import recipes
from pipelines.contract import Table
from pipelines.tables import (
    ALL_TABLES,
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    MEMBER_PROMPTS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEQUENCE_EVENTS,
)
from tests.jobs.id_search import files_with

_TIMEOUT_SECONDS = 900
_DAILY = (
    RAW_EVENTS,
    REJECTED_EVENTS,
    INTERACTIONS,
    ITEM_DAYS,
    ITEM_COUNTERS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
)


@pytest.fixture(scope="module")
def environ(
    tmp_path_factory: pytest.TempPathFactory, jar_cache: Path, mlflow_database: Path
) -> dict[str, str]:
    """Return the environment of a data home of its own."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RANKLAKE_")}
    home = tmp_path_factory.mktemp("home")
    database = home / "simulated" / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copy(mlflow_database, database)
    return {
        **inherited,
        "RANKLAKE_HOME": str(home),
        "RANKLAKE_SUPPRESSION_KEY": str(tmp_path_factory.mktemp("keys") / "suppression.key"),
        "RANKLAKE_PROFILE": "test",
        "RANKLAKE_JARS": str(jar_cache),
    }


def _run(
    environ: dict[str, str], checkout: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.run", *arguments],
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )


@pytest.fixture(scope="module")
def finished(environ: dict[str, str], checkout: Path) -> subprocess.CompletedProcess[str]:
    """Materialise everything once."""
    return _run(environ, checkout)


@pytest.fixture(scope="module")
def summary(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON line of the run."""
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return json.loads(finished.stdout.strip().splitlines()[-1])


def test_every_table_has_rows_and_no_raw_row_is_lost(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    assert set(rows) == {table.name for table in ALL_TABLES}
    assert all(count > 0 for count in rows.values())
    assert 0 < rows["rejected_events"] < rows["raw_events"]


def test_models_are_registered_as_candidates(summary: dict[str, Any]) -> None:
    assert set(summary["models"]) == {
        "ranker",
        "retriever",
        "prompt_ranker",
        "optimized_prompt_ranker",
    }
    assert all("candidate" in model["alias"] for model in summary["models"].values())


def test_metrics_stand_beside_their_references(summary: dict[str, Any]) -> None:
    metrics = summary["metrics"]
    assert metrics["ne_true"] < metrics["ne_reachable"] < 1
    assert metrics["expert_bytes_after"] <= metrics["expert_bytes_before"]
    for name in ("ne_ranker", "ne_logistic_regression", "recall_at_10_retriever", "lis_after"):
        assert metrics[name] is not None


def test_replicas_differ_before_a_converge_and_are_equal_after(
    summary: dict[str, Any], environ: dict[str, str]
) -> None:
    results = Settings.from_env(environ).workspace / "results"
    for name in ("ranker", "retriever", "prompt_ranker"):
        found = json.loads((results / f"{name}.json").read_text())
        assert found["difference_before"] > 0, name
        assert found["difference_after"] == 0, name
        assert found["rate_traces"], name
        for group, traces in found["rate_traces"].items():
            assert len(traces) == 2, (name, group)


def test_report_is_one_page_that_needs_nothing_else(summary: dict[str, Any]) -> None:
    page = Path(summary["report"]).read_text()
    for title in ("Ranking", "Retrieval", "Prompt ranker", "Training", "Mixture of experts"):
        assert f"<h2>{title}</h2>" in page
    assert "<svg" in page
    assert "src=" not in page and "<link" not in page


def test_data_docs_exist(summary: dict[str, Any]) -> None:
    docs = Path(summary["report"]).parent / "data_docs" / "index.html"
    assert "raw_events" in docs.read_text()


def test_progress_is_visible(finished: subprocess.CompletedProcess[str]) -> None:
    assert "sequences ..." in finished.stdout
    assert "ranker done in" in finished.stdout


def _files(environ: dict[str, str], table: Table) -> dict[str, set[str]]:
    """Return the data files of each day of a table."""
    log = DeltaTable(str(table_path(Settings.from_env(environ).lake, table)))
    found: dict[str, set[str]] = {}
    for action in pa.table(log.get_add_actions(flatten=True)).to_pylist():
        found.setdefault(str(action["partition.event_date"]), set()).add(action["path"])
    return found


def _rows(environ: dict[str, str], table: Table) -> list[str]:
    return sorted(map(repr, arrow(Settings.from_env(environ).lake, table).to_pylist()))


def test_rerun_of_one_day_writes_that_day_alone_and_the_same_rows(
    summary: dict[str, Any], environ: dict[str, str], checkout: Path
) -> None:
    assert summary["rows"]["interactions"] > 0
    files = {table.name: _files(environ, table) for table in _DAILY}
    rows = {table.name: _rows(environ, table) for table in _DAILY}
    day = sorted(files["interactions"])[4]
    home = Settings.from_env(environ).dagster_home
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "dagster"), "asset", "materialize"),
            *("-m", "jobs.definitions", "--partition", day),
            *("--select", ",".join(table.name for table in _DAILY)),
        ],
        cwd=checkout,
        env={**environ, "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for table in _DAILY:
        after = _files(environ, table)
        changed = {d for d in after if after[d] != files[table.name].get(d)}
        assert changed == {day}, table.name
        assert _rows(environ, table) == rows[table.name], table.name


def test_a_leaderboard_takes_the_tables_of_the_run_and_a_spent_budget_fits_nothing(
    summary: dict[str, Any], environ: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*(sys.executable, "-m", "jobs.leaderboard"), "0", "popularity", "", str(tmp_path)],
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert line["leaderboard"] == "simulated"
    assert line["figures"]["cells_missing"] == 6
    assert line["figures"]["ne_popularity"] is None
    assert [goal["met"] for goal in line["goals"]] == [False, False]
    assert "0 of 6 cells" in done.stdout and "sequences ..." not in done.stdout
    page = Path(line["report"]).read_text()
    assert line["report"] == summary["report"]
    assert "<h2>Leaderboard</h2>" in page and "<h2>Mixture of experts</h2>" in page
    assert not list(tmp_path.iterdir())


def test_a_search_takes_the_tables_of_the_run_and_a_training_takes_what_it_found(
    summary: dict[str, Any], environ: dict[str, str], checkout: Path
) -> None:
    done = subprocess.run(
        [*(sys.executable, "-m", "jobs.search"), "ranker", "2"],
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert line["search"] == "ranker" and "sequences ..." not in done.stdout
    found = json.loads(Path(line["kept"]).read_text())
    assert [trial["epochs"] for trial in found["trials"]] == [3, 3]
    assert found["best"]["score"] == min(trial["score"] for trial in found["trials"])
    config = found["run_config"]["ops"]["ranker"]["config"]
    _, recipe = RecipeConfig(**config).resolve(recipes, platform=Platform(variables=environ))
    assert recipe.training.learning_rate == line["overrides"]["training.learning_rate"]


def test_forgotten_user_is_in_no_file_of_tables_models_reports_and_runs(
    summary: dict[str, Any], environ: dict[str, str], checkout: Path
) -> None:
    settings = Settings.from_env(environ)
    torn = arrow(settings.lake, RAW_EVENTS, columns=("raw_text",))["raw_text"].drop_null()
    named = {name for text in torn.to_pylist() for name in re.findall(r"u\d{7}", text)}
    user = sorted(named & set(arrow(settings.lake, MEMBER_PROMPTS)["user_id"].to_pylist()))[0]
    assert len(files_with(settings.home, user)) > 6
    done = subprocess.run(
        [sys.executable, "-m", "jobs.forget"],
        cwd=checkout,
        env=environ,
        input=f"{user}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert files_with(settings.home, user) == []
    models = ", ".join(f"{name} 1" for name in sorted(summary["models"]))
    assert f"models to be trained again: {models}\n" in done.stdout
    assert "models that lost their input example: 4\n" in done.stdout
    assert user not in done.stdout + done.stderr
    assert not settings.ray_folder.exists()
