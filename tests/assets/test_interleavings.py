"""However runs, re-runs, late rows and backfills are interleaved, the same tables come of it.

The log has actions after midnight, which belong to impressions of the days before.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from assets.model_data import item_identities
from infra.delta_arrow import data_files
from infra.errors import UserError
from infra.lakehouse import Commit, Lakehouse
from infra.pinned_tables import pin
from pipelines.contract import Table
from pipelines.refits import CutRefit
from pipelines.tables import INTERACTIONS, ITEM_COUNTERS, ITEMS, PERCENTILE_CUTS
from pipelines.version_tables import ITEM_VERSIONS
from tests.assets.arrival_log import NIGHTS, day, draw_log
from tests.assets.day_tables import DAY_TABLES
from tests.assets.interleaving import SNAPSHOTS, Lake, interleave
from tests.infra.small_disk import filled, mounted
from tests.local_folder import local

_LOG_SEED = 12
# What is left of a full disk: nothing, or too little for a data file or the commit after it.
_ROOMS_BYTES = (0, 8192)
_REFIT = CutRefit(
    first_day=day(3),
    last_day=day(4),
    arrived_before=day(8),
    requested_at=datetime(2024, 3, 8, tzinfo=UTC),
    why="late rows of the first days",
)


@pytest.fixture(scope="module")
def seed() -> int:
    """Draw the seed of the log and of the history of runs over it."""
    drawn = random.SystemRandom().randrange(1_000_000)
    print(f"to repeat: make drill NAME=interleavings ARGS='1 {drawn}'")  # noqa: T201
    return drawn


@pytest.fixture(scope="module")
def history(
    seed: int, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lake, str]:
    """Return a lake after a history of runs, which is told in words as well."""
    lake = Lake(root=tmp_path_factory.mktemp("history"), spark=spark, manifest=NIGHTS)
    told = interleave(lake, draw_log(seed, manifest=NIGHTS), random.Random(seed))
    return lake, f"seed {seed}: {'; '.join(told)}"


@pytest.fixture(scope="module")
def full_rebuild(
    seed: int,
    history: tuple[Lake, str],
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> Lake:
    """Return the lake of one full rebuild."""
    refits = list(history[0].refits)
    root = tmp_path_factory.mktemp("rebuilt")
    lake = Lake(root=root, spark=spark, manifest=NIGHTS, refits=refits)
    lake.run(draw_log(seed, manifest=NIGHTS), start=day(1), end=day(6))
    lake.finish()
    return lake


@pytest.fixture(scope="module")
def rebuilt(full_rebuild: Lake) -> dict[str, list[str]]:
    """Return the rows of one full rebuild by table."""
    rows = {table.name: full_rebuild.rows(table) for table in (*DAY_TABLES, *SNAPSHOTS)}
    empty = [name for name, found in rows.items() if not found]
    assert not empty, f"{empty} are empty: the tests say nothing of them"
    return rows


def test_any_interleaving_ends_as_one_full_rebuild(
    history: tuple[Lake, str], rebuilt: dict[str, list[str]], full_rebuild: Lake
) -> None:
    lake, told = history
    for table in (*DAY_TABLES, *SNAPSHOTS):
        assert lake.rows(table) == rebuilt[table.name], f"{table.name} after {told}"
    joined = full_rebuild.house.read(INTERACTIONS).where("later_days IS NOT NULL").collect()
    assert joined and {day for row in joined for day in row.later_days} <= {1, 2}
    _check_versions(lake)


def _check_versions(lake: Lake) -> None:
    """Item b changes its tags; the models go on with those that it had first."""
    now = {row.item_id: row for row in lake.house.read(ITEMS).collect()}
    identities = item_identities(pin(lake.root, (ITEM_VERSIONS,)))
    assert identities["item_index"].to_pylist() == list(range(1, len(now) + 1))
    assert now["b"].tags == ["u"]
    assert identities["tags"].to_pylist()[now["b"].item_index - 1] == ["t"]
    assert lake.house.read(ITEM_VERSIONS).where("item_id = 'b'").count() == 3


class _FullDiskLakehouse(Lakehouse):
    """Write each table after the disk was full, and then had a little room.

    The disk is real, and so is every failure; all that is added is the ballast.
    """

    def overwrite(self, table: Table, frame: DataFrame) -> Commit:
        """Try on the full disk, then write."""
        self._fail(table, lambda: super(_FullDiskLakehouse, self).overwrite(table, frame))
        return super().overwrite(table, frame)

    def overwrite_partition(
        self, table: Table, frame: DataFrame, *, start: date, end: date
    ) -> Commit:
        """Try on the full disk, then write."""
        write = super().overwrite_partition
        self._fail(table, lambda: write(table, frame, start=start, end=end))
        return write(table, frame, start=start, end=end)

    def _fail(self, table: Table, write: Callable[[], Commit]) -> None:
        folder = local(self.path(table))
        before = data_files(folder)
        for room in _ROOMS_BYTES:
            with (
                filled(local(self.root), room_bytes=room),
                pytest.raises(
                    UserError, match=f"no space left on the disk of {folder}: .*run again"
                ),
            ):
                write()
            assert data_files(folder) == before
            there = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
            assert there == before


@dataclass(kw_only=True)
class _FullDiskLake(Lake):
    @property
    def house(self) -> Lakehouse:
        """Return the lakehouse of the disk."""
        return _FullDiskLakehouse(self.root, self.spark)


def test_disk_that_is_full_at_each_table_leaves_nothing_half_written(
    seed: int,
    history: tuple[Lake, str],
    rebuilt: dict[str, list[str]],
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    with mounted(tmp_path / "disk", mebibytes=16) as disk:
        refits = list(history[0].refits)
        lake = _FullDiskLake(root=disk, spark=spark, manifest=NIGHTS, refits=refits)
        lake.run(draw_log(seed, manifest=NIGHTS), start=day(1), end=day(6))
        lake.finish()
        for table in (*DAY_TABLES, *SNAPSHOTS):
            assert lake.rows(table) == rebuilt[table.name], table.name


def test_a_late_row_changes_counts_at_once_and_cuts_only_by_a_refit(
    spark: SparkSession, tmp_path: Path
) -> None:
    log = draw_log(_LOG_SEED)
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
