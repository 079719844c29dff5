"""Two drivers race for the same version of a table's log; acknowledged against present commits.

make drill NAME=commit-race [ARGS=<races>]

Every race is forced: both drivers are told the version and the moment. Without the lakehouse's
lock Delta's log store for local paths acknowledges some versions twice, and one commit of such a
pair is gone; the same races are then run under the lock.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyspark

from infra.jars import delta_jars
from infra.settings import Settings

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


def race(folder: Path, *, races: int, locked: bool, jars: Path) -> Races:
    """Let two drivers race for `races` versions, one after the other.

    Args:
        folder: An empty folder.
        races: How many versions.
        locked: Hold the lakehouse's lock around each commit.
        jars: Folder of Delta's jars.
    """
    log = folder / "_delta_log"
    log.mkdir(parents=True)
    lock = str(folder / "_locks" / "table") if locked else ""
    spark_jars = Path(next(iter(pyspark.__path__))) / "jars"
    classes = f"{spark_jars}/*:{jars}/*"
    command = [sys.executable, "-m", "tests.benchmarks.commit_racer", str(log)]
    drivers = [
        subprocess.Popen(
            [*command, name, classes, lock],
            cwd=ROOT,
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
    return _count(log, told)


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


def _count(log: Path, told: list[list[str]]) -> Races:
    acknowledged = present = doubled = 0
    for version, answers in enumerate(told):
        holder = (log / f"{version:020d}.json").read_text().strip()
        winners = [name for name, answer in zip(NAMES, answers, strict=True) if answer[0] == "a"]
        acknowledged += len(winners)
        present += winners.count(holder)
        doubled += len(winners) == len(NAMES)
    refused = sum(answers.count("refused") for answers in told)
    return Races(acknowledged=acknowledged, present=present, doubled=doubled, refused=refused)


def main() -> int:
    """Race without and with the lock; return 1 if the lock lost a commit."""
    races = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    jars = delta_jars(Settings.from_env())[0].parent
    found = {}
    with tempfile.TemporaryDirectory(prefix="ranklake-race-") as home:
        for name, locked in (("without the lock", False), ("with the lock", True)):
            found[name] = race(Path(home) / name, races=races, locked=locked, jars=jars)
            print(f"{name}: {races} races, {found[name]}", flush=True)
    end = found["with the lock"]
    lost = end.acknowledged - end.present
    equal = lost == 0 and end.acknowledged == end.refused == races
    line = {
        "drill": "commit-race",
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
