"""A row of a mapped log that came late: counters follow at once, cuts only by a re-fit."""

from datetime import UTC, date, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from assets.day_steps import refresh_percentile_cuts
from infra.lakehouse import Lakehouse
from pipelines.refits import CutRefit
from pipelines.sources import mapped
from pipelines.tables import ITEM_COUNTERS, PERCENTILE_CUTS
from tests.assets.day_tables import rows_of, run_days

_MAPPING = """
log = "labelled"
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "at"
format = "iso"
[arrival]
column = "came"
format = "iso"
[action.columns]
click = "click"
"""
_DAYS = (date(2024, 3, 1), date(2024, 3, 3))
_REFIT = CutRefit(
    first_day=_DAYS[1],
    last_day=_DAYS[1],
    arrived_before=date(2024, 3, 6),
    requested_at=datetime(2024, 3, 6, tzinfo=UTC),
    why="a partner's log came late",
)


def test_a_late_row_counts_at_once_and_in_cuts_only_after_a_refit(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "mapping.toml").write_text(_MAPPING)
    log, options = tmp_path / "log.csv", {"mapping": str(tmp_path / "mapping.toml")}
    rows = [
        f"u{user},{item},2024-03-0{day}T12:00:0{user}Z,2024-03-0{day}T12:01:00Z,{user % 2}\n"
        for day in (1, 2, 3)
        for user in (1, 2)
        for item in "ab"
    ]
    log.write_text("user,item,at,came,click\n" + "".join(rows))
    manifest, house = mapped.describe(spark, str(log), options), Lakehouse(tmp_path / "lake", spark)

    def run(start: date, end: date) -> None:
        raw = mapped.events(spark, str(log), manifest, options, start=start, end=end)
        items = mapped.items(spark, str(log), manifest, options)
        run_days(house, manifest, raw=raw, catalogue=items, days=(start, end))

    run(*_DAYS)
    cuts = rows_of(house, PERCENTILE_CUTS)
    assert cuts
    assert _counts(house) == {("a", 1): 0, ("a", 2): 2, ("a", 3): 4, ("b", 1): 0} | {
        ("b", 2): 2,
        ("b", 3): 4,
    }
    with log.open("a") as file:
        file.write("u3,a,2024-03-01T13:00:00Z,2024-03-05T09:00:00Z,1\n")
    run(_DAYS[0], _DAYS[0])
    assert _counts(house) == {("a", 1): 0, ("a", 2): 3, ("a", 3): 5, ("b", 1): 0} | {
        ("b", 2): 2,
        ("b", 3): 4,
    }
    assert rows_of(house, PERCENTILE_CUTS) == cuts
    refresh_percentile_cuts(house, manifest, start=_DAYS[1], end=_DAYS[1], refits=(_REFIT,))
    refitted = set(rows_of(house, PERCENTILE_CUTS)) ^ set(cuts)
    assert refitted and all(repr(_DAYS[1]) in row for row in refitted)


def _counts(house: Lakehouse) -> dict[tuple[str, int], int]:
    return {
        (row.item_id, row.event_date.day): row.impressions_before
        for row in house.read(ITEM_COUNTERS).collect()
    }
