"""Counters and cuts as they were known: late rows are missing until the day after they arrive."""

import random
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.testing import assertDataFrameEqual

from pipelines.item_counters import count_items
from pipelines.item_numbers import item_numbers, mean_rates
from pipelines.known_counters import known_counters
from pipelines.percentile_cuts import days_to_fit, fit_cuts
from pipelines.refits import CutRefit
from pipelines.tables import ITEM_COUNTERS
from pipelines.version_tables import ITEM_VERSIONS
from tests.pipelines.log_rows import LOG, item_day, item_day_log, item_table, march
from tests.pipelines.version_rows import since_ever

_REFIT = CutRefit(
    first_day=march(6),
    last_day=march(8),
    arrived_before=march(20),
    requested_at=datetime(2024, 3, 20, tzinfo=UTC),
    why="a partner's log came a week late",
)


def _draw(seed: int) -> list[dict[str, Any]]:
    """Draw sums per item, day and day of arrival, about a third of them late."""
    chance = random.Random(seed)
    rows = {}
    for _ in range(60):
        item, day = chance.choice("abc"), chance.randint(1, 14)
        arrived = day + chance.choice([0, 0, 0, 0, 1, 2, 5, 9])
        shown = chance.randint(1, 9)
        row = item_day(item, day, shown, chance.randint(0, shown), arrived=arrived)
        rows[item, day, arrived] = row
    return list(rows.values())


def _known(log: list[dict[str, Any]], *, before: date) -> list[dict[str, Any]]:
    return [row for row in log if row["arrival_date"] < before]


def _in_force(rows: list[Row], *, before: date) -> dict[tuple[str, date], tuple]:
    """Return the counters' values of the states in force as a day begins."""
    return {
        (row.item_id, row.event_date): tuple(row)[: len(ITEM_COUNTERS.columns)]
        for row in rows
        if row.known_on < before and (row.known_until is None or row.known_until >= before)
    }


def test_each_state_equals_a_count_over_what_had_arrived(spark: SparkSession) -> None:
    log = _draw(7)
    options: dict[str, Any] = {"manifest": LOG, "start": march(2), "end": march(13)}
    states = known_counters(item_day_log(spark, *log), **options).collect()
    for before in (march(5), march(9), march(12), march(14), march(30)):
        arrived = item_day_log(spark, *_known(log, before=before))
        expected = {tuple(row)[:2]: tuple(row) for row in count_items(arrived, **options).collect()}
        found = _in_force(states, before=before)
        # Days that had not ended have states of their own later on; nothing of them is known yet.
        assert found == {key: row for key, row in expected.items() if key[1] < before}


def test_without_late_rows_every_item_day_has_one_state(spark: SparkSession) -> None:
    log = item_day_log(
        spark, item_day("a", 1, 4, 1), item_day("a", 3, 2, 0), item_day("b", 3, 1, 1)
    )
    options: dict[str, Any] = {"manifest": LOG, "start": march(1), "end": march(9)}
    states = known_counters(log, **options)
    named = {
        (row.item_id, row.event_date, row.known_on, row.known_until) for row in states.collect()
    }
    assert named == {
        ("a", march(1), march(1), None),
        ("a", march(3), march(3), None),
        ("b", march(3), march(3), None),
    }
    assertDataFrameEqual(states.drop("known_on", "known_until"), count_items(log, **options))


def _cuts(
    spark: SparkSession, log: list[dict[str, Any]], *refits: CutRefit, last: int = 14
) -> DataFrame:
    item_days = item_day_log(spark, *log)
    known = known_counters(item_days, manifest=LOG, start=march(1), end=march(last))
    rates = mean_rates(item_days, manifest=LOG)
    versions = since_ever(item_table(spark), ITEM_VERSIONS)
    numbers = item_numbers(known, rates=rates, versions=versions, manifest=LOG)
    days = days_to_fit(item_days, refits=refits)
    return fit_cuts(numbers, days=days, start=march(2), end=march(last))


def _by_day(cuts: DataFrame) -> dict[date, list[tuple]]:
    found: dict[date, list[tuple]] = {}
    for row in sorted(map(tuple, cuts.drop("version").collect())):
        found.setdefault(row[0], []).append(row)
    return found


def test_cuts_count_what_had_arrived_as_their_day_began(spark: SparkSession) -> None:
    log = _draw(8)
    frozen = _by_day(_cuts(spark, log))
    for day in (march(4), march(8), march(12)):
        on_that_morning = [*_known(log, before=day), item_day("z", day.day, 1, 0)]
        assert frozen[day] == _by_day(_cuts(spark, on_that_morning))[day]


def test_what_arrives_later_changes_no_cut_but_by_a_refit(spark: SparkSession) -> None:
    log = [item_day("a", day, 2, 1) for day in range(1, 11)]
    late = item_day("a", 4, 500, 5, arrived=12)
    before, after = _cuts(spark, log, last=10), _cuts(spark, [*log, late], last=10)
    assertDataFrameEqual(after, before)
    refitted = _cuts(spark, [*log, late], _REFIT, last=10)
    versions = [
        {tuple(row)[:3]: row.version for row in cuts.collect()} for cuts in (before, refitted)
    ]
    changed = {key[0] for key in versions[0] if versions[0][key] != versions[1].get(key)}
    assert changed == {march(6), march(7), march(8)}


@pytest.mark.parametrize(
    ("last_day", "arrived_before"), [(march(5), march(20)), (march(8), march(8))]
)
def test_a_refit_that_can_count_nothing_more_is_refused(
    last_day: date, arrived_before: date
) -> None:
    with pytest.raises(ValueError, match=r"first_day|arrived_before"):
        CutRefit(
            first_day=march(6),
            last_day=last_day,
            arrived_before=arrived_before,
            requested_at=_REFIT.requested_at,
            why="none",
        )
