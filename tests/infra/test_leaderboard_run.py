"""A tiny leaderboard on a real Ray: two baselines from nothing to the table, and what is left."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import stop_ray
from infra.leaderboard_run import RunLimits, compare, fit_missing, recipe_states
from infra.leaderboard_section import failure_grid, leaderboard_section, recipe_grid
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
    yield  # the first pool starts Ray
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
    return build_board(config, ledger, counts={"users": 60, "targets": 1800}, at_once=2)


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
    again = build_board(config, Ledger(path), counts={"users": 60, "targets": 1800}, at_once=2)
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
    assert _cells(board)["popularity"] == ("missing",) * 8 + ("0 of 6 cells",)


def _cells(board: Board) -> dict[str, tuple[str, ...]]:
    grid = recipe_grid({**board.as_result(), "surfaces": []})
    return {row[0]: row[1:] for row in grid.rows}


def test_the_section_shows_every_recipe_action_and_slice(board: Board) -> None:
    section = leaderboard_section({**board.as_result(), "surfaces": ["home", "search"]})
    assert "12 of 12 cells are measured; data version" in section.text
    names = [grid.caption.split(" (")[0] for grid in section.grids]
    assert names[:3] == [
        "Test period, click",
        "Costs on one thread",
        "Claims: NE of a recipe minus its rival's, paired by user",
    ]
    assert names[3:5] == ["NE per action", "AUC per action"]
    slices = section.grids[-1].header
    assert [name.split(" (")[0] for name in slices] == [
        "recipe",
        "users with fewer than 10 earlier events",
        "items younger than a day",
        "surface unknown",
        "surface home",
        "surface search",
    ]
    assert [row[0] for row in section.grids[0].rows] == ["logistic regression", "popularity"]
    assert section.grids[0].rows[0][-1] == "complete"
    assert section.figures[0].svg.startswith("<svg")


def test_a_cell_that_raises_is_a_line_and_is_tried_again_only_by_request(
    exam: ExamFolder, config: BoardConfig, tmp_path: Path
) -> None:
    one = replace(config, recipes={"popularity": config.recipes["popularity"]})
    ledger = Ledger(tmp_path / "ledger.jsonl")
    nowhere = ExamFolder(path=tmp_path / "gone")
    for retry, lines in ((False, 3), (False, 3), (True, 6)):  # the trials; no test without one
        assert fit_missing(one, ledger, nowhere, limits=RunLimits(retry=retry), say=print) == 0
        assert len(ledger.lines) == lines
    board = build_board(one, ledger, counts={}, at_once=2)
    assert _cells(board)["popularity"] == ("missing",) * 8 + ("failed",)
    [row] = failure_grid(board.as_result()).rows
    assert row[0] == "popularity" and row[1].startswith("FileNotFoundError: ")
    assert str(tmp_path) not in row[1]
    assert fit_missing(one, ledger, exam, limits=RunLimits(retry=True), say=print) == 6
    assert build_board(one, ledger, counts={}, at_once=2).recipes["popularity"]["error"] is None


def _square(number: int) -> Any:
    import os

    if number == 0:
        os._exit(1)
    if number < 0:
        raise ValueError("a negative number")
    return number**2, os.environ["OMP_NUM_THREADS"]


def test_tasks_have_one_thread_and_a_failure_ends_only_its_own() -> None:
    found = {}
    with TaskPool(_square) as pool:
        for number in (3, -1):
            pool.start(number, number)
        assert not pool.has_room
        name, outcome = pool.wait()
        found[name] = outcome
        pool.start(0, 0)
        while not pool.is_idle:
            name, outcome = pool.wait()
            found[name] = outcome
    assert found[3] == (9, "1")
    assert isinstance(found[-1], TaskFailure)
    assert (found[-1].reason, found[-1].raised) == ("ValueError: a negative number", True)
    assert isinstance(found[0], TaskFailure) and not found[0].raised
