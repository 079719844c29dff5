"""A training's records after a writer was killed: half a result is never read or shown."""

import logging
from pathlib import Path

import pytest

from infra.json_lines import append_line
from infra.training_log import HISTORY_FILE, KEPT_FILE, ProgressLog, keep_result, read_record


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
