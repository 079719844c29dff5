"""However runs, re-runs, late rows and backfills are interleaved, the same tables come of it.

The log has actions after midnight, which belong to impressions of the days before.
"""

from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from assets.model_data import item_identities
from pipelines.refits import CutRefit
from pipelines.tables import INTERACTIONS, ITEM_COUNTERS, ITEMS, PERCENTILE_CUTS
from pipelines.version_tables import ITEM_VERSIONS
from tests.assets.arrival_log import NIGHTS, arrived, day, draw_log
from tests.assets.day_tables import DAY_TABLES
from tests.assets.interleaving import SNAPSHOTS, Lake

_SEED = 11
_REFIT = CutRefit(
    first_day=day(3),
    last_day=day(4),
    arrived_before=day(8),
    requested_at=datetime(2024, 3, 8, tzinfo=UTC),
    why="late rows of the first days",
)


def test_any_interleaving_ends_as_one_full_rebuild(spark: SparkSession, tmp_path: Path) -> None:
    log = draw_log(_SEED, manifest=NIGHTS)
    lake = Lake(root=tmp_path / "interleaved", spark=spark, manifest=NIGHTS)
    lake.run(arrived(log, before=day(3)), start=day(1), end=day(2))  # the first two days
    lake.run(arrived(log, before=day(6)), start=day(4), end=day(5))  # day 3 is skipped
    lake.run(arrived(log, before=day(7)), start=day(3), end=day(3))  # and filled in, with late rows
    lake.refits.append(_REFIT)
    lake.run(log, start=day(1), end=day(3))  # what came late for the first days
    lake.run(log, start=day(4), end=day(6))  # days again, with their late rows, and the last day
    lake.finish()

    rebuilt = Lake(root=tmp_path / "rebuilt", spark=spark, manifest=NIGHTS, refits=[_REFIT])
    rebuilt.run(log, start=day(1), end=day(6))
    rebuilt.finish()
    for table in (*DAY_TABLES, *SNAPSHOTS):
        rows = rebuilt.rows(table)
        assert rows, f"{table.name} is empty: the test says nothing of it"
        assert lake.rows(table) == rows, table.name
    joined = rebuilt.house.read(INTERACTIONS).where("later_days IS NOT NULL").collect()
    assert {day for row in joined for day in row.later_days} == {1, 2}
    _check_versions(lake)


def _check_versions(lake: Lake) -> None:
    """Item b changes its tags; the models go on with those that it had first."""
    now = {row.item_id: row for row in lake.house.read(ITEMS).collect()}
    identities = item_identities(lake.root)
    assert identities["item_index"].to_pylist() == list(range(1, len(now) + 1))
    assert now["b"].tags == ["u"]
    assert identities["tags"].to_pylist()[now["b"].item_index - 1] == ["t"]
    assert lake.house.read(ITEM_VERSIONS).where("item_id = 'b'").count() == 3


def test_a_late_row_changes_counts_at_once_and_cuts_only_by_a_refit(
    spark: SparkSession, tmp_path: Path
) -> None:
    log = draw_log(_SEED + 1)
    late = {**log[0], "event_id": "late", "impression_id": "late", "item_id": "a"}
    late |= {"arrival_time": datetime(2024, 3, 7, 12, tzinfo=UTC), "event_date": day(1)}
    lake = Lake(root=tmp_path, spark=spark)
    lake.run(log, start=day(1), end=day(6))
    cuts, interactions = lake.rows(PERCENTILE_CUTS), lake.rows(INTERACTIONS)
    before = _impressions(lake)
    lake.run([*log, late], start=day(1), end=day(1))
    assert len(lake.rows(INTERACTIONS)) == len(interactions) + 1
    after = _impressions(lake)
    assert after.keys() == before.keys()
    changed = {key: after[key] - before[key] for key in before if after[key] != before[key]}
    assert changed and set(changed.values()) == {1}
    assert {item for item, _ in changed} == {"a"}
    assert lake.rows(PERCENTILE_CUTS) == cuts
    lake.refit(_REFIT)
    refitted = set(lake.rows(PERCENTILE_CUTS)) ^ set(cuts)
    assert {
        number for number in range(1, 7) if any(repr(day(number)) in row for row in refitted)
    } == ({3, 4})


def _impressions(lake: Lake) -> dict[tuple[str, str], int]:
    return {
        (row.item_id, str(row.event_date)): row.impressions_before
        for row in lake.house.read(ITEM_COUNTERS).collect()
    }
