"""A training's records after a writer was killed: half a line or half a result is never read."""

import logging
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.training_log import (
    HISTORY_FILE,
    KEPT_FILE,
    ProgressLog,
    append_line,
    keep_result,
    read_lines,
    read_record,
)


def test_a_line_below_half_of_one_is_read_and_the_half_is_not(tmp_path: Path) -> None:
    path = tmp_path / HISTORY_FILE
    append_line(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # its writer was killed
    assert read_lines(path) == [{"step": 1}]
    append_line(path, {"step": 3})
    append_line(path, {"step": 4})
    assert read_lines(path) == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_a_line_that_is_no_half_of_a_record_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / HISTORY_FILE
    path.write_text('{"step": 1}\n{"step": 2{"step": 3}\n')
    with pytest.raises(UserError, match=r"history\.jsonl:2 is no record.*remove that line"):
        read_lines(path)


def test_a_result_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    keep_result(tmp_path, {"loss": 1.0}, tmp_path / "first", [{"loss": 1.0}])
    (tmp_path / f"{KEPT_FILE}.draft").mkdir()  # nothing can be written there, as on a full disk
    with pytest.raises(OSError, match="draft"):
        keep_result(tmp_path, {"loss": 0.5}, tmp_path / "second", [{"loss": 0.5}])
    record = read_record(tmp_path)
    assert (record.metrics, record.checkpoint) == ({"loss": 1.0}, tmp_path / "first")


def test_half_a_result_beside_a_whole_one_is_not_read(tmp_path: Path) -> None:
    keep_result(tmp_path, {"loss": 1.0}, tmp_path / "first", [{"loss": 1.0}])
    (tmp_path / f"{KEPT_FILE}.draft").write_text('{"metrics": {"lo')
    assert read_record(tmp_path).metrics == {"loss": 1.0}


def test_each_whole_report_is_shown_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append_line(tmp_path / HISTORY_FILE, {"loss": 0.25})
    with caplog.at_level(logging.INFO), ProgressLog(tmp_path, name="shown"):
        with (tmp_path / HISTORY_FILE).open("a") as file:
            file.write('{"loss": 0.1')
        append_line(tmp_path / HISTORY_FILE, {"loss": 0.125})
    assert [record.getMessage() for record in caplog.records] == [
        "shown: loss 0.25",
        "shown: loss 0.125",
    ]
