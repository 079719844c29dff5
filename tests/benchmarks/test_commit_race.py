"""Two drivers that race for the same versions under the lock lose no acknowledged commit."""

from pathlib import Path

from tests.benchmarks.drill_commit_race import Races, race

RACES = 60


def test_every_acknowledged_commit_is_present(tmp_path: Path, jar_cache: Path) -> None:
    found = race(tmp_path, races=RACES, locked=True, jars=jar_cache)
    assert found == Races(acknowledged=RACES, present=RACES, doubled=0, refused=RACES)
