"""JSON lines after a writer was killed: half a line is never read, whole ones never lost."""

import math
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.json_lines import append_line, cut_lines, read_lines


def test_a_line_is_added_and_the_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert [append_line(path, {"score": score}) for score in (0.5, math.inf)] == [1, 2]
    assert read_lines(path) == [{"score": 0.5}, {"score": math.inf}]


def test_a_line_below_half_of_one_is_read_and_the_half_is_not(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_line(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # its writer was killed
    assert read_lines(path) == [{"step": 1}]
    append_line(path, {"step": 3})
    append_line(path, {"step": 4})
    assert read_lines(path) == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_the_first_lines_stay_when_a_history_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    cut_lines(path, 3)
    assert not path.exists()
    path.write_text('{"score": 3}\n{"score": 2}\n{"score": 1}\n{"sc')
    cut_lines(path, 4)
    assert [line["score"] for line in read_lines(path)] == [3, 2, 1]
    cut_lines(path, 2)
    assert path.read_text() == '{"score": 3}\n{"score": 2}\n'
    cut_lines(path, 0)
    assert read_lines(path) == []


def test_a_whole_line_that_is_no_record_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2{"step": 3}\n')
    with pytest.raises(UserError, match=r"history\.jsonl:2 is no record.*remove that line"):
        read_lines(path)
