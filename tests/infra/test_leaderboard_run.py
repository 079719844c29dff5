"""A tiny leaderboard on a real Ray: two baselines from nothing to the table, and what is left."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.leaderboard_run import RunLimits, compare, fit_missing, recipe_states
from infra.task_pool import TaskFailure, TaskPool
from ml.ranking.leaderboard.comparison import Evidence
from ml.ranking.leaderboard.exam_folder import ExamFolder
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.plan import BoardConfig
from ml.ranking.leaderboard.table import Board, build_board
from tests.ml.leaderboard_exam import board_config, planted_splits, saved_exam
from tests.ml.sequence_examples import feature_spec

RECIPES = ("popularity", "logistic_regression")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray_instance(ClusterConfig(cpus=2))
    yield
    stop_ray()


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> ExamFolder:
    return saved_exam(tmp_path_factory.mktemp("exam"), planted_splits())


@pytest.fixture(scope="module")
def config() -> BoardConfig:
    return board_config(planted_splits(), recipe_states(RECIPES))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, exam: ExamFolder, config: BoardConfig) -> Path:
    """Return the ledger of a leaderboard that was run to its end."""
    path = tmp_path_factory.mktemp("ledger") / "simulated.jsonl"
    assert (
        fit_missing(config, Ledger(path), exam, limits=RunLimits(), say=print) == 12
    )  # 2 x (3 + 3)
    return path


@pytest.fixture(scope="module")
def board(path: Path, exam: ExamFolder, config: BoardConfig) -> Board:
    ledger = Ledger(path)
    test = exam.open_test()
    compare(config, ledger, Evidence(test=test, spec=feature_spec(), folder=exam.path))
    return build_board(config, ledger, counts={"users": 60}, at_once=2)


def test_a_recipe_that_knows_the_user_beats_popularity_and_neither_the_truth(board: Board) -> None:
    entropies = [board.entropy(name) for name in ("logistic_regression", "popularity")]
    assert entropies[0] is not None and entropies[1] is not None
    assert entropies[0] < entropies[1] < 1.05
    assert board.ranking == ["logistic_regression", "popularity"]
    assert [(c["recipe"], c["verdict"]) for c in board.claims] == [("logistic_regression", "holds")]
    closed = board.recipes["logistic_regression"]["closed"]
    assert 0 < closed["low"] < closed["value"] < closed["high"] < 1
    assert board.figures["cells_missing"] == 0


def test_every_recipe_had_as_many_trials_and_the_test_split_was_opened_once_a_seed(
    board: Board, path: Path
) -> None:
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for recipe in RECIPES:
        own = [line for line in lines if line["recipe"] == recipe]
        assert sorted(x["trial"] for x in own if x["kind"] == "trial") == [0, 1, 2]
        assert sorted(x["seed"] for x in own if x["kind"] == "test") == [0, 1, 2]
        assert not [x for x in own if x["kind"] == "trial" and "test" in x]


def test_a_second_call_fits_nothing_and_keeps_the_file(
    board: Board, path: Path, exam: ExamFolder, config: BoardConfig
) -> None:
    before = path.read_bytes()
    assert fit_missing(config, Ledger(path), exam, limits=RunLimits(), say=print) == 0
    evidence = Evidence(test=exam.open_test(), spec=feature_spec(), folder=exam.path)
    compare(config, Ledger(path), evidence)
    assert path.read_bytes() == before


def test_a_fresh_clone_shows_the_same_table_without_a_prediction(
    board: Board, path: Path, config: BoardConfig
) -> None:
    again = build_board(config, Ledger(path), counts={"users": 60}, at_once=2)
    assert again == board


def test_a_spent_budget_starts_nothing_and_shows_cells_as_missing(
    exam: ExamFolder, config: BoardConfig, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert fit_missing(config, ledger, exam, limits=RunLimits(budget_seconds=0), say=print) == 0
    board = build_board(config, ledger, counts={}, at_once=2)
    assert {found["state"] for found in board.recipes.values()} == {"missing"}
    assert board.figures["cells_missing"] == 12
    assert [goal["met"] for goal in board.goals] == [False, False]


def test_a_cell_that_raises_is_a_line_and_is_tried_again_only_by_request(
    exam: ExamFolder, config: BoardConfig, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    nowhere = ExamFolder(path=tmp_path / "gone")
    for retry, lines in ((False, 6), (False, 6), (True, 12)):  # the trials; no test without one
        assert fit_missing(config, ledger, nowhere, limits=RunLimits(retry=retry), say=print) == 0
        assert len(ledger.lines) == lines
    board = build_board(config, ledger, counts={}, at_once=2)
    assert {found["state"] for found in board.recipes.values()} == {"failed"}
    assert "FileNotFoundError" in board.recipes["popularity"]["error"]
    assert str(tmp_path) not in ledger.lines[0]["error"]
    assert fit_missing(config, ledger, exam, limits=RunLimits(retry=True), say=print) == 12


def _square(number: int) -> Any:
    import os

    if number < 0:
        raise ValueError("a negative number")
    return number**2, os.environ["OMP_NUM_THREADS"]


def test_tasks_have_one_thread_and_a_failure_ends_only_its_own() -> None:
    found = {}
    with TaskPool(_square) as pool:
        for number in (3, -1):
            pool.start(number, number)
        assert not pool.has_room
        while not pool.is_idle:
            name, outcome = pool.wait()
            found[name] = outcome
    assert found[3] == (9, "1")
    assert isinstance(found[-1], TaskFailure)
    assert found[-1].reason == "ValueError: a negative number"
