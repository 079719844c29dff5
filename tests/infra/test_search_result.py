"""What a trial writes down, and the best of several trials."""

import json
import math
from pathlib import Path

import pytest

from infra.json_lines import append_line, read_lines
from infra.search_result import SearchResult, TrialRecord, course_notes, read_trial
from infra.training_log import HISTORY_FILE
from tests.infra.small_disk import filled, mounted

RATE = "training.learning_rate"


def test_a_full_disk_costs_the_line_and_none_before_it(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", mebibytes=1) as disk:
        path = disk / HISTORY_FILE
        lines = [{"score": 0.5, "metrics": "x" * 3000}, {"score": 0.4, "metrics": "y" * 3000}]
        append_line(path, lines[0])
        with filled(disk, room_bytes=0), pytest.raises(OSError, match="No space left"):
            append_line(path, lines[1])
        found = read_trial(disk, 0, {RATE: 0.1}, lost="the trial was lost: full", is_kept=False)
        assert found.history == lines[:1] and found.failure == "the trial was lost: full"
        assert append_line(path, lines[1]) == 2
        assert read_lines(path) == lines


def test_a_reason_that_a_full_disk_left_empty_is_still_a_failure(tmp_path: Path) -> None:
    (tmp_path / "failure.txt").write_text("")
    found = read_trial(tmp_path, 0, {RATE: 0.1}, lost=None, is_kept=False)
    assert found.failure == "it failed, and its reason could not be written down"


def test_the_best_trial_is_one_that_came_to_its_end() -> None:
    diverged = _trial(0, [0.1, math.inf], failure="TrainingDivergedError: the loss is nan")
    whole, worse = _trial(1, [0.4, 0.3]), _trial(2, [0.9])
    assert SearchResult(monitor="m", trials=(diverged, whole, worse)).best is whole
    empty = _trial(3, [math.inf], failure="ValueError: no")
    assert SearchResult(monitor="m", trials=(empty, diverged)).best is diverged
    unscored = _trial(4, [math.inf])
    assert SearchResult(monitor="m", trials=(unscored, diverged)).best is diverged


def test_a_population_whose_members_never_met_says_so() -> None:
    one, other, short = _trial(0, [0.5, 0.4]), _trial(1, [0.6, 0.7]), _trial(2, [0.9])
    assert course_notes((one, other, short)) == ()
    (note,) = course_notes((one, short, short))
    assert "never met" in note
    assert "max_steps" in note


def _trial(number: int, scores: list[float], *, failure: str | None = None) -> TrialRecord:
    history = [json.loads(json.dumps({"score": score, "values": {RATE: 1.0}})) for score in scores]
    return TrialRecord(number=number, values={RATE: 1.0}, history=history, failure=failure)
