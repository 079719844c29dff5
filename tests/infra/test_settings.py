"""Settings come from the environment alone, and a data home holds one source."""

import pickle
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.settings import Settings
from infra.sources import source_module
from pipelines.sources.manifest import SourceManifest
from tests.local_folder import local

MANIFEST = SourceManifest(
    source="simulated",
    actions=("click", "like"),
    primary_action="click",
    positive_actions=("click",),
    surfaces=("feed",),
    start_date=date(2025, 3, 1),
    end_date=date(2025, 3, 9),
    validation_start=datetime(2025, 3, 7, tzinfo=UTC),
    test_start=datetime(2025, 3, 8, tzinfo=UTC),
    cannot_feed={"item_text": "no text"},
)


def test_reads_every_variable() -> None:
    settings = Settings.from_env(
        {
            "RANKLAKE_HOME": "/data/home",
            "RANKLAKE_SOURCE": "mapped",
            "RANKLAKE_DATA_PATH": "/data/log.csv",
            "RANKLAKE_MAPPING": "/data/map.toml",
            "RANKLAKE_TIMEZONE": "Asia/Shanghai",
            "RANKLAKE_WORKERS": "3",
            "RANKLAKE_THREADS": "4",
            "RANKLAKE_JARS": "/data/jars",
            "JAVA_HOME": "/opt/java",
        }
    )
    assert settings.home == Path("/data/home")
    assert (settings.source, settings.data, settings.workers, settings.threads) == (
        "mapped",
        "/data/log.csv",
        3,
        4,
    )
    assert settings.source_options == {"mapping": "/data/map.toml", "timezone": "Asia/Shanghai"}
    assert settings.jar_cache == Path("/data/jars")
    assert settings.java_home == Path("/opt/java")


def test_empty_environment_gives_defaults_under_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"RANKLAKE_SOURCE": "", "RANKLAKE_DATA_PATH": " "})
    assert settings.home == tmp_path / ".ranklake"
    assert (settings.source, settings.data, settings.source_options) == ("simulated", None, {})
    state = (local(settings.lake), settings.models, settings.dagster_home, settings.reports)
    assert all(folder.is_relative_to(settings.home) for folder in (*state, settings.spark_folder))
    assert (
        settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/.ranklake/simulated/mlflow/mlflow.db"
    )


def test_test_profile_is_small_and_can_be_overridden() -> None:
    small = Settings.from_env({"RANKLAKE_PROFILE": "test", "RANKLAKE_FEED_DAYS": "5"})
    assert small.source_options == {"users": "300", "days": "5"}
    assert (small.feed_end - small.feed_start).days == 4


def test_preset_of_the_feed_is_an_option_of_that_source_alone() -> None:
    preset = {"RANKLAKE_FEED_PRESET": "dog_cat"}
    assert Settings.from_env(preset).source_options == {"preset": "dog_cat"}
    kuairand = {"RANKLAKE_SOURCE": "kuairand", "RANKLAKE_DATA_PATH": "/data"}
    assert Settings.from_env(preset | kuairand).source_options == {}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANKLAKE_FEED_PRESET": "cat"}, "RANKLAKE_FEED_PRESET must be one of"),
        ({"RANKLAKE_WORKERS": "two"}, "RANKLAKE_WORKERS must be a whole number, not 'two'"),
        ({"RANKLAKE_WORKERS": "0"}, "RANKLAKE_WORKERS must be at least 1, not 0"),
        ({"RANKLAKE_PROFILE": "huge"}, "RANKLAKE_PROFILE must be one of"),
    ],
)
def test_wrong_variable_is_named_in_one_line(variables: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Settings.from_env(variables)
    assert "\n" not in str(caught.value)


def test_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown source 'netflix'; choose one of simulated, "):
        source_module("netflix")


def test_manifest_survives_the_record(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.load_manifest() is None
    settings.save_manifest(MANIFEST)
    settings.save_manifest(MANIFEST)
    assert settings.load_manifest() == MANIFEST
    assert [path.name for path in settings.workspace.iterdir()] == ["source.json"]


def test_each_source_has_a_folder_of_its_own_and_the_jars_are_shared(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.save_manifest(MANIFEST)
    other = replace(settings, source="kuairand", data="/data/kuairand")
    assert other.load_manifest() is None
    assert not local(other.lake).is_relative_to(settings.workspace)
    assert other.jar_cache == settings.jar_cache


def test_a_known_source_needs_no_path_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, source="kuairand", data="/data/kuairand")
    settings.save_manifest(MANIFEST)
    again = Settings.from_env({"RANKLAKE_HOME": str(tmp_path), "RANKLAKE_SOURCE": "kuairand"})
    assert again.data == "/data/kuairand"
    assert again.load_manifest() == MANIFEST


def test_home_refuses_another_path_feed_size_and_mapping_text(tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text("user = 'u'")
    settings = Settings(
        home=tmp_path / "home", source="mapped", data="/data/a.csv", mapping=str(mapping)
    )
    settings.save_manifest(MANIFEST)
    with pytest.raises(UserError, match=r"data is /data/a.csv there and /data/b.csv here"):
        replace(settings, data="/data/b.csv").load_manifest()
    mapping.write_text("user = 'v'")
    with pytest.raises(UserError, match="mapping_sha256"):
        settings.load_manifest()
    feed = Settings(home=tmp_path / "feed", feed_users=100)
    feed.save_manifest(MANIFEST)
    with pytest.raises(UserError, match="users is 100 there and unset here"):
        replace(feed, feed_users=None).load_manifest()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"identity": {}, "manifest": "{}"}'])
def test_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    settings = Settings(home=tmp_path)
    settings.workspace.mkdir()
    settings.source_file.write_text(text)
    with pytest.raises(UserError, match=r"source\.json cannot be read .*make clean-data"):
        settings.load_manifest()


def test_user_error_keeps_its_line_between_processes() -> None:
    error = UserError("disk\nis full.", remedy="free some space")
    assert str(error) == "disk is full; free some space"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(("number", "gpus"), [("0", 0), ("1", 1), ("", 0)])
def test_a_worker_takes_no_or_one_accelerator(number: str, gpus: int) -> None:
    assert Settings.from_env({"RANKLAKE_GPUS_PER_WORKER": number}).gpus_per_worker == gpus


@pytest.mark.parametrize("number", ["2", "-1"])
def test_more_accelerators_than_a_worker_computes_on_are_refused(number: str) -> None:
    with pytest.raises(UserError, match=r"GPUS_PER_WORKER must be 0 or 1.*RANKLAKE_WORKERS"):
        Settings.from_env({"RANKLAKE_GPUS_PER_WORKER": number})


def test_processors_of_a_worker_are_a_fraction_or_whole() -> None:
    def read(number: str, **others: str) -> float | None:
        given = {"RANKLAKE_CPUS_PER_WORKER": number, "RANKLAKE_THREADS": "2", **others}
        return Settings.from_env(given).cpus_per_worker

    assert (read("0.5"), read("2"), read("")) == (0.5, 2.0, None)
    assert read("8", RAY_ADDRESS="head:6379") == 8.0, "a cluster has more than this machine"
    for wrong in ("0", "-1", "1.5", "3", "nan"):
        with pytest.raises(UserError, match="RANKLAKE_CPUS_PER_WORKER must be a fraction"):
            read(wrong)
    with pytest.raises(UserError, match="must be a number, not 'many'"):
        read("many")
