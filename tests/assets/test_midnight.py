"""Clicks after midnight in a mapped log: the day before is corrected, whichever day runs first."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.events import cleaned_events, raw_events
from assets.partitions import EVENT_PARTITIONS, RANGE_END, RANGE_START
from assets.tables import item_days
from infra.platform import Platform
from pipelines.day_statistics import day_statistics
from pipelines.tables import INTERACTIONS, ITEM_DAYS, RAW_EVENTS, REJECTED_EVENTS
from tests.assets.day_tables import rows_of
from tests.mapped_log import platform_of, write_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DAYS = EVENT_PARTITIONS.get_partition_keys()[:3]
_TABLES = (RAW_EVENTS, REJECTED_EVENTS, INTERACTIONS, ITEM_DAYS)
_MAPPING = """
log = "impressions"
attribution_window_seconds = 1800
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "time"
format = "iso"
[action]
column = "what"
"""


def _row(number: int, clock: str, user: str, what: str) -> dict[str, str]:
    return {"time": f"{_DAYS[number]}T{clock}Z", "user": user, "item": "i1", "what": what}


_ROWS = [
    _row(0, "23:50:00", "ann", "impression"),
    _row(0, "23:55:00", "bob", "impression"),
    _row(1, "00:10:00", "ann", "click"),
    _row(1, "00:25:01", "bob", "click"),  # a second too late
    _row(1, "12:00:00", "ann", "impression"),
    _row(1, "12:10:00", "ann", "click"),
    _row(2, "12:00:00", "bob", "impression"),
]


def _run(platform: Platform, first: int, last: int) -> None:
    done = dg.materialize(
        [raw_events, cleaned_events, item_days],
        resources={"platform": platform},
        tags={RANGE_START: _DAYS[first], RANGE_END: _DAYS[last]},
    )
    assert done.success


def _labels(platform: Platform) -> set[tuple[str, str, int]]:
    rows = platform.lakehouse().read(INTERACTIONS).collect()
    return {(str(row.event_date), row.user_id, row.action_bits) for row in rows}


def test_a_click_after_midnight_labels_the_impression_before_it_in_any_order_of_runs(
    spark: "SparkSession", tmp_path: Path
) -> None:
    (tmp_path / "mapping.toml").write_text(_MAPPING)
    write_rows(tmp_path / "log.csv", _ROWS)
    first, second, third = _DAYS
    others = {(first, "bob", 0), (second, "ann", 1), (third, "bob", 0)}
    platform, rebuilt = (platform_of(tmp_path, log="log.csv", home=home) for home in ("a", "b"))
    _run(rebuilt, 0, 2)
    assert _labels(rebuilt) == {(first, "ann", 1), *others}
    (orphan,) = rebuilt.lakehouse().read(REJECTED_EVENTS).collect()
    assert (str(orphan.event_date), orphan.reason) == (second, "orphan_action")

    _run(platform, 1, 2)  # the clicks come before the impressions
    assert _labels(platform) == others - {(first, "bob", 0)}
    _run(platform, 0, 0)
    for table in _TABLES:
        expected = rows_of(rebuilt.lakehouse(), table)
        assert rows_of(platform.lakehouse(), table) == expected, table.name
    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    counted = day_statistics(
        lakehouse.read(RAW_EVENTS),
        rejected=lakehouse.read(REJECTED_EVENTS),
        interactions=lakehouse.read(INTERACTIONS),
        manifest=manifest,
        days=(manifest.start_date, manifest.end_date),
    ).collect()
    sums = {
        str(row.event_date): (row.raw_rows, row.kept_rows, row.rejected_rows) for row in counted
    }
    assert sums == {first: (2, 2, 0), second: (4, 3, 1), third: (1, 1, 0)}

    write_rows(tmp_path / "log.csv", [*_ROWS[:2], *_ROWS[4:]])
    _run(platform, 1, 1)  # the log takes the clicks of the night back
    assert _labels(platform) == {(first, "ann", 0), *others}
    (day_one,) = platform.lakehouse().read(ITEM_DAYS).where(f"event_date = DATE'{first}'").collect()
    assert (day_one.impressions, day_one.action_counts) == (2, [0])
