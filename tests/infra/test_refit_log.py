"""Re-fits are kept in the order in which they were asked for."""

from datetime import UTC, date, datetime
from pathlib import Path

from infra.refit_log import append_refit, load_refits
from infra.settings import Settings
from pipelines.refits import CutRefit


def test_returns_what_was_appended(tmp_path: Path) -> None:
    settings = Settings.from_env({"RANKLAKE_HOME": str(tmp_path)})
    assert load_refits(settings) == ()
    refits = tuple(
        CutRefit(
            first_day=date(2024, 3, day),
            last_day=date(2024, 3, day + 1),
            arrived_before=date(2024, 3, 20),
            requested_at=datetime(2024, 3, 20, 8, day, tzinfo=UTC),
            why=f'the log of "shop {day}" came late',
        )
        for day in (7, 3)
    )
    for refit in refits:
        append_refit(settings, refit)
    assert load_refits(settings) == refits
