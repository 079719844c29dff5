"""MLflow on SQLite: runs, aliases, and models that load as data and never as code."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from assets.fitting import Training, register_training
from assets.model_data import PROMPT_TABLES, pinned, prompt_columns, ranking_pairs
from infra.errors import UserError
from infra.input_examples import drop_input_examples
from infra.model_loader import KINDS, check_folder, loader_of
from infra.platform import Platform
from infra.ray_training import FitResult
from infra.registry import ModelCard, ModelVersion, Registry
from infra.run_log import TrainingRun
from infra.table_care import care_for
from infra.trained_versions import mark_erased, retraining_requests, trained_versions
from pipelines.tables import SEQUENCES
from tests.infra.ranker_folder import ranker_rows, save_ranker
from tests.infra.small_prompts import prompts_at, write_prompts
from tests.local_folder import local
from tests.pipelines.sequence_rows import MANIFEST

_FRESH_PROCESS = """
import sys
import numpy as np
import pandas as pd
import torch
from infra.registry import Registry
torch.set_num_threads(1)
registry = Registry(tracking_uri=sys.argv[1], artifacts_uri=sys.argv[2])
model = registry.load("ranker", alias="candidate")
np.save(sys.argv[4], model.predict(pd.read_json(sys.argv[3], orient="records")))
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small, untrained ranker."""
    return save_ranker(tmp_path_factory.mktemp("ranker"))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Return a new data home."""
    home = tmp_path_factory.mktemp("home")
    return Platform(variables={"RANKLAKE_HOME": str(home), "RANKLAKE_PROFILE": "test"})


@pytest.fixture(scope="module")
def registry(platform: Platform) -> Registry:
    """Return the registry of the data home."""
    return platform.registry()


@pytest.fixture(scope="module")
def run_id(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the logged run of a training."""
    note = tmp_path_factory.mktemp("files") / "note.txt"
    note.write_text("kept")
    return registry.log_training(
        TrainingRun(
            name="ranker",
            config={"model": {"width": 32}, "seed": 0},
            metrics={"test_ne": 0.875, "not_known": float("nan")},
            curves={"loss": [(step, 1.0 / (1 + step)) for step in range(1500)]},
            data_versions={"sequences": 4, "items": 2},
            tags={"recipe": "toy"},
            files=[note],
        )
    )


@pytest.fixture(scope="module")
def card() -> ModelCard:
    """Return the card of the ranker."""
    return ModelCard(
        name="ranker",
        kind="ranker",
        input_example=ranker_rows(),
        metrics={"test_ne": 0.875},
        tags={"recipe": "toy"},
    )


@pytest.fixture(scope="module")
def registered(
    registry: Registry, model_folder: Path, card: ModelCard, run_id: str
) -> ModelVersion:
    """Return the first registered version."""
    return registry.register(model_folder, card, run_id=run_id)


def _stored(registry: Registry, name: str = "ranker", version: int = 1) -> Path:
    import mlflow.artifacts

    registry.models()
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}"))


def test_tables_of_registered_models_are_known_and_of_other_runs_not(
    registry: Registry, registered: ModelVersion
) -> None:
    assert registered.version == 1
    registry.log_training(TrainingRun(name="thrown away", data_versions={"sequences": 7}))
    assert registry.trained_on() == {"sequences": {4}, "items": {2}}
    assert registry.tables_of(registered) == {"sequences": 4, "items": 2}
    assert registry.tables_of(replace(registered, version=999)) == {}


def test_run_keeps_parameters_metrics_curves_config_and_table_versions(
    registry: Registry, run_id: str
) -> None:
    import mlflow

    registry.models()
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.width": "32", "seed": "0"}
    assert run.data.metrics["test_ne"] == 0.875
    assert "not_known" not in run.data.metrics
    assert len(client.get_metric_history(run_id, "loss")) == 1500
    assert run.data.tags["table.sequences"] == "4"
    assert run.inputs is not None
    inputs = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    assert inputs == {"sequences": "version-4", "items": "version-2"}
    assert {file.path for file in client.list_artifacts(run_id)} >= {"config.json", "note.txt"}


def test_new_version_is_candidate_and_only_promotion_makes_a_champion(
    registry: Registry, registered: ModelVersion, model_folder: Path, card: ModelCard, run_id: str
) -> None:
    assert registered.version == 1
    assert registered.aliases == ("candidate",)
    assert registered.tags["kind"] == "ranker"
    assert registered.tags["metric.test_ne"] == "0.875"
    with pytest.raises(UserError, match="no model 'ranker' with the alias 'champion'"):
        registry.version("ranker", alias="champion")
    assert registry.promote("ranker", version=1).aliases == ("candidate", "champion")
    second = registry.register(model_folder, card, run_id=run_id)
    assert (second.version, second.aliases) == (2, ("candidate",))
    assert registry.version("ranker", alias="champion").version == 1
    assert registry.models() == ["ranker"]


def test_fresh_process_gives_bit_equal_scores(
    registry: Registry, registered: ModelVersion, tmp_path: Path, checkout: Path
) -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = tmp_path / "rows.json"
    ranker_rows().to_json(rows, orient="records")
    here = registry.load("ranker", alias="candidate").predict(pd.read_json(rows, orient="records"))
    torch.set_num_threads(threads)
    arguments = [registry._tracking_uri, registry._artifacts_uri, str(rows)]
    there = tmp_path / "scores.npy"
    subprocess.run(
        [sys.executable, "-c", _FRESH_PROCESS, *arguments, str(there)],
        check=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )
    assert here.shape == (6,)  # two targets in each of three rows
    assert np.unique(here).size == 6
    assert np.load(there).tobytes() == np.asarray(here).tobytes()


def test_folder_of_a_model_holds_what_was_registered(
    registry: Registry, registered: ModelVersion, model_folder: Path
) -> None:
    folder = registry.folder("ranker", alias="candidate")
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in model_folder.iterdir()} | {"serving.json"}
    for path in model_folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_registered_model_has_signature_example_and_no_pickle_and_no_code(
    registry: Registry, registered: ModelVersion
) -> None:
    folder = _stored(registry)
    meta = yaml.safe_load((folder / "MLmodel").read_text())
    assert meta["flavors"]["python_function"]["loader_module"] == "infra.model_loader"
    assert "event_time" in meta["signature"]["inputs"]
    assert meta["saved_input_example_info"]["artifact_path"]
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".safetensors", ".yaml", ".txt"}
    assert not list(folder.rglob("code*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loader_module": "planted_module"}, "only infra.model_loader may load"),
        ({"code": "code"}, "only infra.model_loader may load"),
        ({"python_model": "python_model.pkl"}, "only infra.model_loader may load"),
        ({"data": "../../elsewhere"}, "outside its own folder"),
    ],
)
def test_tampered_model_is_refused_before_anything_of_it_runs(
    registry: Registry,
    registered: ModelVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    message: str,
) -> None:
    (tmp_path / "planted_module.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'was-run')!r}).touch()\n"
        "def _load_pyfunc(path): raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = _stored(registry, version=registry.version("ranker", alias="candidate").version)
    original = (path / "MLmodel").read_text()
    meta = yaml.safe_load(original)
    meta["flavors"]["python_function"].update(change)
    try:
        (path / "MLmodel").write_text(yaml.safe_dump(meta))
        with pytest.raises(UserError, match=message):
            registry.load("ranker", alias="candidate")
    finally:
        (path / "MLmodel").write_text(original)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("name", ["weights.pkl", "pytorch_model.bin", "model.pt", "code.py"])
def test_planted_file_is_refused_when_registering_and_when_loading(
    registry: Registry,
    registered: ModelVersion,
    model_folder: Path,
    card: ModelCard,
    run_id: str,
    tmp_path: Path,
    name: str,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    (copy / name).write_bytes(b"planted")
    with pytest.raises(ValueError, match=f"holds {name}"):
        registry.register(copy, card, run_id=run_id)
    version = registry.version("ranker", alias="candidate").version
    planted = _stored(registry, version=version) / "data" / "model" / name
    planted.write_bytes(b"planted")
    try:
        with pytest.raises(UserError, match=f"holds {name}"):
            registry.load("ranker", alias="candidate")
    finally:
        planted.unlink()


def test_link_in_a_model_folder_is_refused(model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    (copy / "other.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match=r"holds other\.json"):
        check_folder(copy)


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown model kind 'oracle'.*ranker"):
        loader_of("oracle")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_loader(kind: str) -> None:
    assert callable(loader_of(kind))


def test_failed_logging_leaves_a_failed_run(registry: Registry, tmp_path: Path) -> None:
    import mlflow

    with pytest.raises(Exception, match="absent"):
        registry.log_training(TrainingRun(name="broken", files=[tmp_path / "absent"]))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ranklake")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'broken'")
    assert [run.info.status for run in runs] == ["FAILED"]


def test_erasure_asks_for_a_training_and_takes_the_input_examples(
    registry: Registry, registered: ModelVersion
) -> None:
    client = registry.client()
    version = next(each for each in trained_versions(client) if each.version == 1)
    assert (version.name, version.tables, version.erased) == (
        "ranker",
        {"sequences": 4, "items": 2},
        (),
    )
    assert retraining_requests(client) == []
    mark_erased(client, version, ["sequences"], today=date(2026, 5, 1))
    tags = client.get_model_version("ranker", "1").tags
    assert tags["training_data_erased"] == "2026-05-01: sequences@4"
    again = next(each for each in trained_versions(client) if each.version == 1)
    assert again.erased == ("sequences@4",)
    assert registry.trained_on()["sequences"] == {4}  # of the other versions
    for other in trained_versions(client):
        mark_erased(client, other, ["sequences"], today=date(2026, 5, 1))
    assert registry.trained_on() == {"items": {2}}
    client.set_registered_model_alias("ranker", "champion", "1")
    assert ("ranker", 1) in retraining_requests(client)

    folder = _stored(registry)
    assert (folder / "input_example.json").exists()
    artifacts = folder.parents[2]
    assert drop_input_examples(artifacts) >= 1
    assert not [path.name for path in artifacts.rglob("*input_example.json")]
    assert drop_input_examples(artifacts) == 0
    assert len(registry.load("ranker", alias="champion").predict(ranker_rows())) > 0


def test_table_rewritten_during_a_training_keeps_the_version_that_was_read(
    platform: Platform, registry: Registry, model_folder: Path
) -> None:
    lake = local(platform.settings().lake)
    platform.settings().save_manifest(MANIFEST)
    write_prompts(lake, "before")
    tables = pinned(platform, PROMPT_TABLES)
    assert prompt_columns(tables, purpose="for_ranking")[0]["prompt"] == ["member before"]
    write_prompts(lake, "after")  # another run, while this one trains
    pairs = ranking_pairs(tables, split="validation")
    assert (pairs.members, pairs.items) == (["member before"], ["item before"])
    fitted = FitResult(
        metrics={}, checkpoint=None, history=[], seconds=1.0, startup_seconds=0.1, starts=1
    )
    training = Training(
        name="ranker",
        recipe="toy",
        config={},
        data=model_folder,
        tables=tables,
        workers=1,
        code="1",
    )
    register_training(platform, training, fitted, model=model_folder, example=ranker_rows())
    for table in PROMPT_TABLES:
        pins = registry.trained_on()[table.name]
        assert pins == {tables.versions[table.name]} == {0}
        assert care_for(lake, table, pins=pins, retention=timedelta(0)).pinned == (0,)
        assert prompts_at(lake, table, version=0)[0].endswith("before")
        assert prompts_at(lake, table, version=None)[0].endswith("after")
    with pytest.raises(ValueError, match=r"table sequences is not pinned, member_prompts"):
        tables.arrow(SEQUENCES)
