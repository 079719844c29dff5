"""The leaderboard's rules: equal trials, one look at the test split, nothing run twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.features import FloatArray, SequenceData
from ml.ranking.contenders import Exam, Setting
from ml.ranking.leaderboard.cells import FAILED, TEST, TRIAL, Line
from ml.ranking.leaderboard.exam_folder import data_version
from ml.ranking.leaderboard.fitting import fit_cell
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.plan import (
    BoardConfig,
    best_on_validation,
    chosen_trial,
    failed_cells,
    missing_cells,
)
from ml.ranking.leaderboard.recipes import RECIPES, Recipe, chosen_recipes
from ml.ranking.leaderboard.scores import action_scores, slices
from ml.ranking.leaderboard.table import failed_line
from tests.ml.leaderboard_exam import board_config, planted_splits, saved_exam
from tests.ml.sequence_examples import changed, feature_spec, item_table, sequences

CONFIG = BoardConfig(
    source="simulated", data="d", primary="click", recipes={"a": "1", "b": "2", "c": "3"}
)


def _trial(recipe: str, trial: int, entropy: float) -> Line:
    cell = CONFIG.cell(TRIAL, recipe, seed=0, trial=trial)
    return {**cell.fields, "validation": {"click": {"ne": entropy}}}


def _test(recipe: str, seed: int, trial: int) -> Line:
    return CONFIG.cell(TEST, recipe, seed=seed, trial=trial).fields


def _names(ledger: Ledger, **options: Any) -> list[str]:
    cells = missing_cells(CONFIG, ledger, **options)
    return [f"{cell.kind} {cell.recipe}{cell.seed}{cell.trial}" for cell in cells]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def test_trials_go_round_the_recipes_before_any_recipe_has_its_second(ledger: Ledger) -> None:
    expected = [f"trial {recipe}0{trial}" for trial in range(3) for recipe in "abc"]
    assert _names(ledger) == expected


def test_the_best_trial_on_validation_is_tested_with_three_seeds(ledger: Ledger) -> None:
    for trial, entropy in enumerate((0.9, 0.7, 0.8)):
        ledger.append(_trial("a", trial, entropy))
    for trial, entropy in enumerate((0.6, 0.6, 0.7)):
        ledger.append(_trial("b", trial, entropy))
    waiting = [f"trial c0{trial}" for trial in range(3)]
    tests = [f"test {r}{seed}{trial}" for seed in range(3) for r, trial in (("a", 1), ("b", 0))]
    assert _names(ledger) == waiting + tests
    assert best_on_validation(CONFIG, ledger, ("a", "b", "c", "unknown")) == "b"


def test_a_failed_trial_is_used_up_and_forgiven_only_before_the_test_split_is_opened(
    ledger: Ledger,
) -> None:
    lost = CONFIG.cell(TRIAL, "a", seed=0, trial=1)
    ledger.append(_trial("a", 0, 0.9))
    ledger.append(failed_line(lost, "ValueError: no"))
    ledger.append(_trial("a", 2, 0.8))
    assert chosen_trial(CONFIG, ledger, "a") == 2
    assert failed_cells(CONFIG, ledger) == {lost}
    assert chosen_trial(CONFIG, ledger, "a", forgiven={lost}) is None
    assert "trial a01" in _names(ledger, forgiven={lost})
    ledger.append(_test("a", 0, 2))
    assert failed_cells(CONFIG, ledger) == set()
    assert chosen_trial(CONFIG, ledger, "a", forgiven={lost}) == 2


def test_lines_of_other_code_or_data_count_as_missing(ledger: Ledger) -> None:
    ledger.append({**_trial("a", 0, 0.9), "modules": "other"})
    ledger.append({**_trial("b", 0, 0.9), "data": "other"})
    assert _names(ledger)[:3] == ["trial a00", "trial b00", "trial c00"]


def test_fewer_than_three_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 seeds"):
        BoardConfig(source="s", data="d", primary="click", recipes={}, seeds=(0, 1, 1))


def test_every_recipe_has_as_many_trials() -> None:
    assert {len(recipe.trials) for recipe in RECIPES.values()} == {3}
    with pytest.raises(ValueError, match="every recipe has 3"):
        Recipe(module="ml.ranking.popularity", trials=("one", "two"))
    with pytest.raises(ValueError, match="unknown recipe 'magic'"):
        chosen_recipes(("magic",))


def test_a_cell_is_never_written_twice_and_the_test_split_opened_once_a_seed(
    ledger: Ledger,
) -> None:
    ledger.append(_trial("a", 0, 0.9))
    ledger.append(_test("a", 0, 1))
    with pytest.raises(ValueError, match="never run again"):
        ledger.append(_trial("a", 0, 0.5))
    with pytest.raises(ValueError, match="never run again"):
        ledger.append(_test("a", 0, 2))
    ledger.append(_test("a", 1, 1))


def test_a_torn_last_line_is_overlooked_and_taken_away_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(_trial("a", 0, 0.9))
    with path.open("a") as file:
        file.write('{"kind": "trial", "reci')
    again = Ledger(path)
    assert again.has(CONFIG.cell(TRIAL, "a", seed=0, trial=0)) and len(again.lines) == 1
    again.append(_trial("a", 1, 0.8))
    assert [json.loads(text)["trial"] for text in path.read_text().splitlines()] == [0, 1]
    assert Ledger(path).lines == again.lines


def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("<<<<<<< ours\n" + json.dumps(_trial("a", 0, 0.9)) + "\n")
    with pytest.raises(ValueError, match=r"line 1 of ledger.jsonl .* version control"):
        Ledger(path)


def test_numbers_are_kept_with_six_digits_and_what_is_not_finite_as_null(ledger: Ledger) -> None:
    line = {**_trial("a", 0, 1 / 3), "rate": np.float32(np.nan), "rows": np.int64(7)}
    written = ledger.append(line)
    assert written["validation"]["click"]["ne"] == 0.333333
    assert written["rate"] is None and written["rows"] == 7


def test_an_exam_with_a_test_split_is_refused() -> None:
    with pytest.raises(ValueError, match="never fitted on"):
        Exam(splits=planted_splits(4), items=item_table(), spec=feature_spec())


class _Constant:
    """Predict one number; remember what was looked at."""

    num_parameters, train_seconds, epochs = 1, 0.5, 2.0

    def __init__(self, value: float = 0.5, actions: int = 3) -> None:
        self.value, self.actions, self.seen = value, actions, []

    def __call__(self, exam: Exam, setting: Setting, folder: Path) -> "_Constant":
        assert folder.is_dir() and not list(folder.iterdir())
        self.seen.append(sorted(exam.splits))
        return self

    def probabilities(self, data: SequenceData) -> FloatArray:
        self.seen.append(int(data.split[0]))
        return np.full((int(data.is_target.sum()), self.actions), self.value)


def test_a_trial_needs_no_test_split_and_a_test_opens_it_last(tmp_path: Path) -> None:
    splits = planted_splits(users=30)
    config = board_config(splits, {"a": "1"})
    folder = saved_exam(tmp_path / "exam", splits)
    tested = _Constant()
    cell = config.cell(TEST, "a", seed=1, trial=2)
    line = fit_cell(folder, cell, contender=tested)
    assert tested.seen == [["train", "validation"], 1, 2]
    assert (line["seed"], line["trial"], line["num_parameters"], line["epochs"]) == (1, 2, 1, 2.0)
    (folder.path / "test.npz").unlink()
    tried = _Constant()
    line = fit_cell(folder, config.cell(TRIAL, "a", seed=0, trial=0), contender=tried)
    assert tried.seen == [["train", "validation"], 1]
    assert "test" not in line and "slices" not in line
    with pytest.raises(FileNotFoundError):
        fit_cell(folder, cell, contender=_Constant())


@pytest.mark.parametrize(
    ("contender", "message"),
    [(_Constant(actions=2), "have the shape"), (_Constant(value=1.5), "within 0 and 1")],
)
def test_what_is_no_probability_of_every_action_is_refused(
    tmp_path: Path, contender: _Constant, message: str
) -> None:
    splits = planted_splits(users=4)
    cell = board_config(splits, {"a": "1"}).cell(TRIAL, "a", seed=0, trial=0)
    with pytest.raises(ValueError, match=message):
        fit_cell(saved_exam(tmp_path / "exam", splits), cell, contender=contender)


def test_slices_by_hand() -> None:
    # Five requests of three events; of the last two requests the events are targets.
    data = sequences([15])
    age = np.array([1] * 9 + [1, 0, 2, 1, 5, 1])
    surface = np.array([0] * 9 + [1, 1, 2, 2, 1, 2])
    data = changed(data, is_target=np.arange(15) >= 9, age=age, surface=surface)
    found = {name: mask.astype(int).tolist() for name, mask in slices(data).items()}
    assert found == {
        "users with fewer than 10 earlier events": [1, 1, 1, 0, 0, 0],  # 9 before, then 12
        "items younger than a day": [1, 0, 0, 1, 0, 1],
        "surface 1": [1, 1, 0, 0, 1, 0],
        "surface 2": [0, 0, 1, 1, 0, 1],
    }
    one = changed(data, surface=np.zeros(15, np.int32))
    assert not [name for name in slices(one) if name.startswith("surface")]


def test_actions_with_fewer_than_200_positives_are_not_judged() -> None:
    data = sequences([400])
    happened = np.arange(400)
    bits = (happened < 199) * 1 + (happened < 200) * 2
    data = changed(data, actions=bits.astype(np.int32))
    scores = action_scores(data, np.full((400, 3), 0.5), spec=feature_spec())
    assert scores["click"] == {"rows": 400, "positives": 199, "too_few": True}
    assert scores["like"]["too_few"] is False
    assert scores["like"]["ne"] == pytest.approx(1.0)  # half of the events, predicted as such
    assert scores["like"]["observed_over_expected"] == pytest.approx(1.0)
    assert scores["share"]["too_few"] is True


def test_the_data_version_is_of_the_numbers_and_not_of_the_last_digits() -> None:
    splits = planted_splits(users=4)
    options = {"items": item_table(), "spec": feature_spec()}
    version = data_version(splits, **options)
    train = splits["train"]
    rate = train.true_probability * (1 + 1e-12)
    assert data_version({**splits, "train": changed(train, true_probability=rate)}, **options) == (
        version
    )
    item = train.item.copy()
    item[-1] += 1
    assert data_version({**splits, "train": changed(train, item=item)}, **options) != version
    assert (
        data_version(
            {**splits, "train": changed(train, item=train.item.astype(np.int64))}, **options
        )
        == version
    )


def test_failures_are_lines_that_do_not_hide_a_later_success(ledger: Ledger) -> None:
    cell = CONFIG.cell(TRIAL, "a", seed=0, trial=0)
    line = ledger.append(failed_line(cell, "ValueError: no"))
    assert line["kind"] == FAILED and ledger.has_failed(cell)
    ledger.append(failed_line(cell, "ValueError: again"))
    ledger.append(_trial("a", 0, 0.9))
    assert ledger.has(cell) and not ledger.has_failed(cell)
