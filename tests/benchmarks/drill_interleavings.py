"""Run the tables of days in random orders; each must end in the rows of one full rebuild.

make drill NAME=interleavings [ARGS="<histories, 10 by default> <first seed, drawn by default>"]

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
from pathlib import Path

from pyspark.sql import SparkSession

from infra.jars import delta_jars
from infra.settings import Settings
from infra.spark import spark_session
from tests.assets.arrival_log import DAYS, MANIFEST, NIGHTS, day, draw_log
from tests.assets.day_tables import DAY_TABLES
from tests.assets.interleaving import SNAPSHOTS, Lake, interleave


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


def main() -> int:
    """Run the drill in a temporary folder; return 0 if every history ended as its rebuild."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        jars = str(delta_jars(Settings.from_env())[0].parent)
        places = {"RANKLAKE_HOME": folder, "RANKLAKE_JARS": jars}
        settings = Settings.from_env({**places, "RANKLAKE_PROFILE": "test"})
        spark = spark_session(settings)
        lost, doubled = drill(spark, Path(folder), seeds=range(first, first + number))
        spark.stop()
    equal = lost == doubled == 0
    line = {"drill": "interleavings", "faults": number, "lost": lost, "doubled": doubled}
    print(json.dumps(line | {"equal": equal}))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
