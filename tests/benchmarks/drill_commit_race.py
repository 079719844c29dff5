"""Two drivers race for the same version of a table's log; acknowledged against present commits.

make drill NAME=commit-race [ARGS="<races> [s3]"]

Every race is forced: both drivers are told the version and the moment. Without the lakehouse's
lock some versions are acknowledged twice, and one commit of such a pair is gone; the same races
are then run under the lock. On a local path Delta's log store for such paths and the lock file are
raced; with `s3` its log store for S3A and the lease, on an S3-compatible server on loopback.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyspark

from infra.jars import delta_jars, s3a_jars
from infra.lake_files import read_file
from infra.lake_location import Folder, lake_folder
from infra.settings import Settings
from tests.infra.s3_server import s3_server, server_program

ROOT = Path(__file__).parents[2]
NAMES = ("one", "two")
_HEAD_START_SECONDS = 0.004


@dataclass(frozen=True, kw_only=True, slots=True)
class Races:
    """Count what came of races for one version each.

    Attributes:
        acknowledged: Commits that a driver was told are in the log.
        present: Those of them that the log holds afterwards.
        doubled: Versions that both drivers were told are theirs.
        refused: Commits that were told to try a later version.
    """

    acknowledged: int
    present: int
    doubled: int
    refused: int


def race(
    lake: Folder, *, races: int, locked: bool, jars: Path, environ: dict[str, str] | None = None
) -> Races:
    """Let two drivers race for `races` versions, one after the other.

    Args:
        lake: An empty place, where the table is and its lock.
        races: How many versions.
        locked: Hold the lakehouse's lock around each commit.
        jars: Folder of Delta's jars, those of S3A in a folder of it.
        environ: Variables that reach an object store.
    """
    if isinstance(lake, Path):
        (lake / "_delta_log").mkdir(parents=True)
    spark_jars = Path(next(iter(pyspark.__path__))) / "jars"
    classes = f"{spark_jars}/*:{jars}/*:{jars}/s3a/*"
    command = [sys.executable, "-m", "tests.benchmarks.commit_racer", str(lake)]
    drivers = [
        subprocess.Popen(
            [*command, name, classes, "locked" if locked else ""],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in NAMES
    ]
    try:
        answers = [_answer(driver) for driver in drivers]
        if answers != ["ready", "ready"]:
            raise RuntimeError(f"the drivers did not start: {answers}")
        told = [_one_race(drivers, version) for version in range(races)]
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    return _count(lake / "_delta_log", told)


def _one_race(drivers: list[subprocess.Popen[str]], version: int) -> list[str]:
    moment = time.monotonic() + _HEAD_START_SECONDS
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write(f"{version} {moment}\n")
        driver.stdin.flush()
    return [_answer(driver) for driver in drivers]


def _answer(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()


def _count(log: Folder, told: list[list[str]]) -> Races:
    acknowledged = present = doubled = 0
    for version, answers in enumerate(told):
        holder = read_file(log, f"{version:020d}.json").decode().strip()
        winners = [name for name, answer in zip(NAMES, answers, strict=True) if answer[0] == "a"]
        acknowledged += len(winners)
        present += winners.count(holder)
        doubled += len(winners) == len(NAMES)
    refused = sum(answers.count("refused") for answers in told)
    return Races(acknowledged=acknowledged, present=present, doubled=doubled, refused=refused)


def main() -> int:
    """Race without and with the lock; return 1 if the lock lost a commit."""
    words = sys.argv[1:]
    on_store = "s3" in words
    races = int(next((word for word in words if word.isdigit()), "1000"))
    settings = Settings.from_env()
    jars = delta_jars(settings)[0].parent
    found: dict[str, Races] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ranklake-race-")))
        environ, root = {}, str(home)
        if on_store:
            s3a_jars(settings)
            environ = stack.enter_context(s3_server(server_program(), home)).environ
            root = environ["RANKLAKE_LAKE"]
        for name, locked in (("without the lock", False), ("with the lock", True)):
            lake = lake_folder(f"{root}/{'locked' if locked else 'free'}", environ)
            found[name] = race(lake, races=races, locked=locked, jars=jars, environ=environ)
            print(f"{name}: {races} races, {found[name]}", flush=True)
    end = found["with the lock"]
    lost = end.acknowledged - end.present
    equal = lost == 0 and end.acknowledged == end.refused == races
    line = {
        "drill": "commit-race-s3" if on_store else "commit-race",
        "faults": races,
        "lost": lost,
        "doubled": end.doubled,
        "equal": equal,
        "lost_without_the_lock": found["without the lock"].acknowledged
        - found["without the lock"].present,
    }
    print(json.dumps(line))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
