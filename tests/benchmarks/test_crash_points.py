"""The crash drill's points reach every table at every moment; three of them, really killed."""

from pathlib import Path

from tests.benchmarks.crash_points import MOMENTS, TABLES, VICTIMS, Point, points
from tests.benchmarks.drill_crash_tables import drill

# One in each gap, the processes in turn, on the shortest path that has both kinds of table.
_MADE = ("raw_events", "rejected_events", "interactions", "user_versions", "users")
_FAULTS = (
    Point(table="interactions", moment="data", victim="jvm"),
    Point(table="users", moment="commit", victim="python", left="old"),
    Point(table="users", moment="before", victim="jvm"),
)


def test_default_points_kill_both_processes_at_every_moment_and_twice_in_every_table() -> None:
    found = points(2 * len(TABLES))
    kills = {(point.moment, point.victim) for point in found}
    assert kills == {(moment, victim) for moment in MOMENTS for victim in VICTIMS}
    tables = {(point.table, point.victim) for point in found}
    assert tables == {(table.name, victim) for table in TABLES for victim in VICTIMS}
    for kind in ("nothing", "old"):
        assert {point.moment for point in found if point.left == kind} == set(MOMENTS)
    assert len({(p.table, p.moment, p.victim) for p in points(6 * len(TABLES))}) == 6 * len(TABLES)


def test_tables_after_a_kill_in_each_gap_equal_an_undisturbed_run(
    tmp_path: Path, jar_cache: Path
) -> None:
    found = drill(tmp_path, jar_cache, faults=_FAULTS, tables=_MADE)
    assert found == {"drill": "crash-tables", "faults": 3, "lost": 0, "doubled": 0, "equal": True}
