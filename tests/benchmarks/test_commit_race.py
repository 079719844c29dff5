"""Two drivers that race for the same versions under the lock lose no acknowledged commit."""

from pathlib import Path

from infra.lake_location import lake_folder
from tests.benchmarks.drill_commit_race import Races, race
from tests.infra.s3_server import S3Server

RACES = 60


def test_every_acknowledged_commit_is_present(tmp_path: Path, jar_cache: Path) -> None:
    lake = tmp_path / "lake"
    found = race(lake, races=RACES, locked=True, jars=jar_cache)
    assert found == Races(acknowledged=RACES, present=RACES, doubled=0, refused=RACES)


def test_every_acknowledged_commit_is_present_on_an_object_store(
    s3: S3Server, s3a_cache: Path
) -> None:
    lake = lake_folder(f"{s3.environ['RANKLAKE_LAKE']}/race", s3.environ)
    found = race(lake, races=RACES, locked=True, jars=s3a_cache.parent, environ=s3.environ)
    assert found == Races(acknowledged=RACES, present=RACES, doubled=0, refused=RACES)
