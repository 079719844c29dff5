"""The crash drill's points reach every table at every moment, with either process killed."""

from tests.benchmarks.drill_crash_tables import MOMENTS, TABLES, points


def test_default_points_kill_both_processes_at_every_moment_and_in_every_table() -> None:
    found = points(30)
    kills = {(point["moment"], point["victim"]) for point in found}
    assert kills == {(moment, victim) for moment in MOMENTS for victim in ("jvm", "python")}
    assert {point["table"] for point in found} == {table.name for table in TABLES}
    assert len({tuple(point.values()) for point in points(60)}) == 60
