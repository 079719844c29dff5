"""Run the tables of days in random orders; each must end in the rows of one full rebuild.

make drill NAME=interleavings [ARGS=<seeds, 10 by default>]

Each seed draws an arrival log (late rows, copies, corrections, ties; every other one with actions
that are filed under later days than their impressions) and a history of runs over it:
days run as they come, skipped and filled in, run again with what arrived since, cuts fitted again.
In the end every day has been run with the whole log, in ranges of any order.
"""

import json
import random
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from infra.jars import delta_jars
from infra.settings import Settings
from infra.spark import spark_session
from pipelines.refits import CutRefit
from tests.assets.arrival_log import DAYS, MANIFEST, NIGHTS, Row, arrived, day, draw_log
from tests.assets.day_tables import DAY_TABLES
from tests.assets.interleaving import SNAPSHOTS, Lake

_LAST_ARRIVAL = DAYS + 5


def interleave(lake: Lake, log: list[Row], chance: random.Random) -> list[str]:
    """Feed a lake a history of runs that ends with everything known; return it in words."""
    told = []
    for now in sorted(chance.sample(range(2, _LAST_ARRIVAL), k=4)):
        last = chance.randint(1, min(now - 1, DAYS))
        first = chance.randint(1, last)
        if chance.random() < 0.3 and told:
            refit = CutRefit(
                first_day=day(first),
                last_day=day(last),
                arrived_before=day(now),
                requested_at=datetime(2024, 3, now, tzinfo=UTC),
                why="drill",
            )
            lake.refit(refit)
            told.append(f"day {now}: cuts of {first}-{last} again")
        lake.run(arrived(log, before=day(now)), start=day(first), end=day(last))
        told.append(f"day {now}: {first}-{last}")
    ranges = _ranges(chance)
    chance.shuffle(ranges)
    for first, last in ranges:
        lake.run(log, start=day(first), end=day(last))
        told.append(f"at last: {first}-{last}")
    lake.finish()
    return told


def compare(lake: Lake, rebuilt: Lake) -> tuple[int, int]:
    """Return how many rows of the rebuild a lake lacks, and how many it has beyond them."""
    lost = doubled = 0
    for table in (*DAY_TABLES, *SNAPSHOTS):
        found, expected = Counter(lake.rows(table)), Counter(rebuilt.rows(table))
        if not expected:
            raise RuntimeError(f"{table.name} is empty: the drill says nothing of it")
        lost += (expected - found).total()
        doubled += (found - expected).total()
    return lost, doubled


def drill(spark: SparkSession, folder: Path, *, seeds: range) -> tuple[int, int]:
    """Compare one random history per seed with a rebuild; print each."""
    lost = doubled = 0
    for seed in seeds:
        chance = random.Random(seed)
        manifest = (MANIFEST, NIGHTS)[seed % 2]
        log = draw_log(seed, manifest=manifest)
        lake = Lake(root=folder / f"history-{seed}", spark=spark, manifest=manifest)
        told = interleave(lake, log, chance)
        rebuilt = Lake(
            root=folder / f"rebuilt-{seed}",
            spark=spark,
            manifest=manifest,
            refits=list(lake.refits),
        )
        rebuilt.run(log, start=day(1), end=day(DAYS))
        rebuilt.finish()
        missing, extra = compare(lake, rebuilt)
        print(f"seed {seed}: {'; '.join(told)}: {missing} rows lost, {extra} beyond", flush=True)
        lost, doubled = lost + missing, doubled + extra
    return lost, doubled


def _ranges(chance: random.Random) -> list[tuple[int, int]]:
    """Cut the days into ranges."""
    edges = sorted(chance.sample(range(2, DAYS + 1), k=chance.randint(1, 3)))
    starts = [1, *edges]
    return [(start, end - 1) for start, end in zip(starts, [*edges, DAYS + 1], strict=True)]


def main() -> int:
    """Run the drill in a temporary folder; return 0 if every history ended as its rebuild."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        jars = str(delta_jars(Settings.from_env())[0].parent)
        places = {"RANKLAKE_HOME": folder, "RANKLAKE_JARS": jars}
        settings = Settings.from_env({**places, "RANKLAKE_PROFILE": "test"})
        spark = spark_session(settings)
        lost, doubled = drill(spark, Path(folder), seeds=range(number))
        spark.stop()
    equal = lost == doubled == 0
    line = {"drill": "interleavings", "faults": number, "lost": lost, "doubled": doubled}
    print(json.dumps(line | {"equal": equal}))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
