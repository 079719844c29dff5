"""A search on a real Ray Tune and a real MLflow: a trial that fails, a member that takes over."""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.json_lines import read_lines
from infra.registry import Registry
from infra.search import SearchConfig, search
from infra.search_log import log_search, search_figures
from infra.search_result import SearchResult
from ml.ranking.sequence_ranker import fit as ranker_fit
from ml.training.checkpoint import load_state, newest_checkpoint
from ml.training.job import Launch
from ml.training.search_space import FieldRange, drawn
from tests.infra.searched_folders import (
    searched_prompt_ranker,
    searched_ranker,
    searched_retriever,
)

RATE, DECAY = "training.learning_rate", "training.weight_decay"
# Rates this high overflow at once: a trial whose loss is not a number fails by itself.
OVERFLOWS = FieldRange(field=RATE, low=1e25, high=1e30, log=True)
DECAYS = FieldRange(field=DECAY, low=0.01, high=1.0, log=True)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray_instance(ClusterConfig(cpus=1))  # the trials of a search then share one process
    yield
    stop_ray()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    root = tmp_path_factory.mktemp("random")
    return SearchConfig(
        model="ranker",
        data=searched_ranker(root / "data", epochs=1),
        folder=root / "trials",
        space=(OVERFLOWS, DECAYS),
        trials=2,
        seed=5,
        step_batches=2,
    )


@pytest.fixture(scope="module")
def result(config: SearchConfig) -> SearchResult:
    return search(config)


def test_a_trial_that_fails_is_listed_and_the_search_goes_on(
    config: SearchConfig, result: SearchResult
) -> None:
    good, bad = result.trials
    assert good.failure is None and good.values[RATE] == 3e-3  # the recipe as it is
    assert [line["metrics"]["epoch"] for line in good.history] == [0.0]
    assert good.score == good.history[0]["metrics"]["validation_ne"]
    assert bad.failure is not None and "the loss is nan" in bad.failure
    assert math.isinf(bad.score) and bad.best is None
    assert (result.best.number, result.monitor) == (0, "validation_ne")
    assert result.best_values == good.values


def test_a_trial_takes_the_steps_of_the_trainings_workers(
    config: SearchConfig, result: SearchResult, tmp_path: Path
) -> None:
    folder = searched_ranker(tmp_path / "alone", epochs=1)
    launch = Launch(step_batches=config.step_batches)
    alone = ranker_fit.fit(folder, report=lambda *_: None, prepare=lambda m: m, launch=launch)
    [line] = result.trials[0].history
    # 15 batches in steps of two.
    assert line["metrics"]["step"] == alone.best["step"] == 8.0
    assert line["score"] == pytest.approx(alone.best["validation_ne"], rel=1e-4)


def test_the_trials_are_those_that_the_seed_draws(
    config: SearchConfig, result: SearchResult
) -> None:
    from infra.searched_models import prepared_recipe

    recipe = prepared_recipe("ranker", config.data)
    points = drawn(config.space, recipe, trials=2, seed=5)
    assert [trial.values for trial in result.trials] == points
    written = json.loads((config.folder / "trial-001" / "ranker_config.json").read_text())
    assert written["training"]["weight_decay"] == points[1][DECAY]
    assert not (config.data / "checkpoints").exists()


def test_trials_are_runs_under_the_searchs_run(
    config: SearchConfig, result: SearchResult, tmp_path: Path
) -> None:
    registry = Registry(
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts_uri=(tmp_path / "artifacts").as_uri(),
        experiment="search",
    )
    parent = log_search(
        registry, config, result, recipe={"width": 16}, data_versions={"sequences": 4}
    )
    client = registry.client()
    run = client.get_run(parent)
    assert run.data.metrics == {"validation_ne": result.best.score, "failed_trials": 1.0}
    params = run.data.params
    assert params["search.method"] == "random" and params["width"] == "16"
    assert params["search.step_batches"] == "2"
    assert params["search.space.training.weight_decay.low"] == "0.01"
    assert params["search.space.training.learning_rate.high"] == "1e+30"
    experiment = run.info.experiment_id
    children = client.search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{parent}'", order_by=["attributes.run_name"]
    )
    assert [child.info.status for child in children] == ["FINISHED", "FAILED"]
    assert "the loss is nan" in children[1].data.tags["failure"]
    assert children[1].info.run_id is not None
    whole = client.download_artifacts(children[1].info.run_id, "traceback.txt", str(tmp_path))
    assert "Traceback (most recent call last)" in Path(whole).read_text()
    assert "TrainingDivergedError: " in Path(whole).read_text()
    [point] = client.get_metric_history(children[0].info.run_id, "validation_ne")
    assert (point.step, point.value) == (0, result.trials[0].score)
    assert children[0].data.params[RATE] == "0.003"


def test_a_failed_trial_has_no_score_in_the_figures(result: SearchResult) -> None:
    figures = json.loads(json.dumps(search_figures(result), allow_nan=False))
    assert figures["best"]["overrides"] == result.trials[0].values
    assert [row["score"] is None for row in figures["trials"]] == [False, True]
    assert figures["space"][DECAY] == {"low": 0.01, "high": 1.0, "log": True}
    assert figures["trials"][0]["traceback"] is None
    assert figures["trials"][1]["traceback"].endswith("trial-001/traceback.txt")
    assert [note.partition(" ")[0] for note in figures["notes"]] == ["HDET"]


def test_a_member_goes_on_from_the_others_checkpoint_with_values_of_its_own(
    tmp_path: Path,
) -> None:
    config = SearchConfig(
        model="ranker",
        data=searched_ranker(tmp_path / "data", epochs=2),
        folder=tmp_path / "trials",
        space=(FieldRange(field=RATE, low=1e-3, high=1e30, log=True), DECAYS),
        trials=2,
        method="population",
        seed=0,
    )
    giver, taker = search(config).trials
    assert [line["taken_from"] for line in giver.history] == [None, None]
    assert [line["taken_from"] for line in taker.history] == [None, 0]
    assert math.isinf(taker.history[0]["score"]) and taker.failure is None
    # The member's own first epoch never ended: its second follows the giver's first.
    checkpoint = newest_checkpoint(config.folder / "trial-001" / "checkpoints")
    assert checkpoint is not None
    first, second = load_state(checkpoint)["history"]
    assert (first["step"], first["validation_ne"]) == (15.0, giver.history[0]["score"])
    assert (second["step"], second["validation_ne"]) == (30.0, taker.history[1]["score"])
    moved, own = taker.history[1]["values"], giver.history[0]["values"]
    assert moved[RATE] / own[RATE] in (pytest.approx(0.8), pytest.approx(1.2))
    assert taker.history[1]["score"] != giver.history[1]["score"]
    groups = {g["name"]: g for g in json.loads((checkpoint / "optimizer.json").read_text())}
    assert groups["dense"]["weight_decay"] == moved[DECAY] != own[DECAY]
    assert groups["no_decay"]["weight_decay"] == 0.0


def test_a_member_whose_process_is_killed_catches_up_and_nobody_waits_for_ever(
    tmp_path: Path,
) -> None:
    config = SearchConfig(
        model="ranker",
        data=searched_ranker(tmp_path / "data", epochs=2),
        folder=tmp_path / "trials",
        space=(DECAYS,),
        trials=2,
        method="population",
    )
    killed: list[int] = []
    killer = threading.Thread(target=_kill, args=(config, killed), daemon=True)
    killer.start()
    result = search(config)
    killer.join(timeout=5)
    assert len(killed) == 1
    assert [trial.failure for trial in result.trials] == [None, None]
    steps = [[line["metrics"]["step"] for line in trial.history] for trial in result.trials]
    assert steps == [[15.0, 30.0], [15.0, 30.0]]


def test_a_lost_trial_is_told_from_the_others_and_alone_runs_again(tmp_path: Path) -> None:
    config = SearchConfig(
        model="ranker",
        data=searched_ranker(tmp_path / "data", epochs=3),
        folder=tmp_path / "trials",
        space=(DECAYS,),
        trials=2,
    )
    killed: list[int] = []
    killer = threading.Thread(target=_kill, args=(config, killed), kwargs={"times": 2}, daemon=True)
    killer.start()
    whole, lost = search(config).trials
    killer.join(timeout=5)
    assert whole.failure is None and [line["metrics"]["epoch"] for line in whole.history] == [
        0,
        1,
        2,
    ]
    assert lost.failure is not None and lost.failure.startswith("the trial was lost: ")
    assert lost.traceback is not None and len(lost.traceback.read_text()) > len(lost.failure)
    again = search(config).trials
    assert [trial.is_kept for trial in again] == [True, False]
    assert again[0].history == whole.history
    assert again[1].failure is None and again[1].values == lost.values
    assert [line["metrics"]["epoch"] for line in again[1].history] == [0, 1, 2]


def _kill(config: SearchConfig, killed: list[int], *, times: int = 1) -> None:
    """Kill the process of the second trial when it has written an epoch down."""
    history = config.folder / "trial-001" / "history.jsonl"
    while len(killed) < times:
        time.sleep(0.02)
        if not read_lines(history):
            continue
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                is_trial = "ImplicitFunc" in process.name()
                if is_trial and process.pid not in killed and len(killed) < times:
                    process.kill()
                    killed.append(process.pid)


@pytest.mark.parametrize(
    ("model", "prepared", "monitor"),
    [
        ("prompt_ranker", searched_prompt_ranker, "validation_ne"),
        ("retriever", searched_retriever, "validation_loss"),
    ],
)
def test_language_models_are_searched_by_the_same_code(
    model: str, prepared: Callable[[Path], Path], monitor: str, tmp_path: Path
) -> None:
    config = SearchConfig(
        model=model, data=prepared(tmp_path / "data"), folder=tmp_path / "trials", trials=2
    )
    result = search(config)
    assert result.monitor == monitor
    assert [trial.failure for trial in result.trials] == [None, None]
    assert result.trials[0].score != result.trials[1].score
    assert set(result.best_values) == {RATE, DECAY}


def test_a_search_whose_every_trial_fails_says_why(tmp_path: Path) -> None:
    data = searched_ranker(tmp_path / "data", epochs=1)
    (data / "train.npz").unlink()
    config = SearchConfig(model="ranker", data=data, folder=tmp_path / "trials", trials=1)
    with pytest.raises(
        UserError, match=r"all 1 trials failed, the first with FileNotFoundError"
    ) as told:
        search(config)
    assert str(told.value).endswith("trial-000/traceback.txt")


def test_refuses_what_cannot_be_searched(tmp_path: Path) -> None:
    data = searched_ranker(tmp_path / "data", epochs=1)
    place: dict[str, Any] = {"data": data, "folder": tmp_path / "trials"}
    wrong = FieldRange(field="training.rate", low=0.1, high=0.2)
    with pytest.raises(UserError, match="the search does not fit the recipe: no field"):
        search(SearchConfig(model="ranker", space=(wrong,), **place))
    with pytest.raises(UserError, match="no model 'regression' to search; choose one of"):
        search(SearchConfig(model="regression", **place))
    with pytest.raises(ValueError, match="a population search needs at least 2 trials"):
        SearchConfig(model="ranker", method="population", trials=1, **place)
    with pytest.raises(UserError, match="after an epoch, and this recipe of the ranker trains for"):
        search(SearchConfig(model="ranker", method="population", trials=2, **place))
    with pytest.raises(ValueError, match="step_batches must be at least 1, not 0"):
        SearchConfig(model="ranker", step_batches=0, **place)
    with pytest.raises(ValueError, match="method must be one of"):
        SearchConfig(model="ranker", method="grid", **place)
