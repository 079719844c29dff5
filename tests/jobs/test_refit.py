"""What a re-fit of percentile cuts asks for, and what it refuses."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from infra.errors import UserError
from jobs.refit import main, new_refit
from tests.pipelines.log_rows import BERLIN

_NOW = datetime(2024, 4, 9, 22, 30, tzinfo=UTC)  # past midnight in Berlin


def test_counts_what_arrived_before_today_in_the_source_zone() -> None:
    refit = new_refit(
        BERLIN, first_day="2024-03-05", last_day="", why=" a partner came late ", now=_NOW
    )
    assert (refit.first_day, refit.last_day) == (date(2024, 3, 5), date(2024, 3, 5))
    assert refit.arrived_before == date(2024, 4, 10)
    assert (refit.why, refit.requested_at) == ("a partner came late", _NOW)


@pytest.mark.parametrize(
    ("first", "last", "why", "message"),
    [
        ("5 March", "", "late", "not a day"),
        ("2024-03-05", "2024-03-06", " ", "needs a reason"),
        ("2024-02-29", "2024-03-06", "late", "not a range within the log's 2024-03-01"),
        ("2024-03-06", "2024-03-05", "late", "not a range"),
    ],
)
def test_refuses_what_cannot_be_fitted(first: str, last: str, why: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}(?s:.*)FROM="):
        new_refit(BERLIN, first_day=first, last_day=last, why=why, now=_NOW)


def test_refuses_days_that_are_not_over() -> None:
    now = datetime(2024, 3, 6, 12, tzinfo=UTC)
    with pytest.raises(UserError, match="wait until the days are over"):
        new_refit(BERLIN, first_day="2024-03-05", last_day="2024-03-06", why="late", now=now)


def test_an_empty_data_home_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path))
    assert main(["2024-03-05", "", "late"]) == 2
    assert "holds no tables" in capsys.readouterr().err
