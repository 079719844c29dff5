"""One run of the tables with the Spark and the lake that the environment names.

A process holds either a classic session or one of Spark Connect; so each kind is a process. What
it found besides the lake itself is printed as one line of JSON.
"""

import json
import sys
import time

from pyspark.sql import functions as F

from infra.changed_days import correct_days
from infra.expectations import suite
from infra.platform import Platform
from infra.quality import QualityGate
from infra.settings import Settings
from infra.spark import spark_session
from pipelines.tables import INTERACTIONS, ITEM_COUNTERS, ITEMS
from tests.assets.arrival_log import DAYS, MANIFEST, day, draw_log
from tests.assets.interleaving import Lake


def main() -> int:
    """Run all days, the snapshots, a merge, a check of quality and a write that fails."""
    began = time.monotonic()
    settings = Settings.from_env()
    spark = spark_session(settings)
    seconds = {"session": time.monotonic() - began}
    lake = Lake(root=settings.lake, spark=spark)
    log = draw_log(3)
    lake.run(log, start=day(1), end=day(DAYS))
    lake.finish()
    seconds["tables"] = time.monotonic() - began
    house = lake.house
    first = house.read(ITEMS).where("item_id = 'a'").withColumn("author_id", F.lit("merged"))
    second = first.withColumns({"item_id": F.lit("zz"), "item_index": F.lit(99)})
    merged = house.merge(ITEMS, first.unionByName(second))
    gate = QualityGate(settings.quality, docs=settings.reports / "data_docs")
    rules = suite(INTERACTIONS, MANIFEST)
    found = gate.validate(house.read(INTERACTIONS), INTERACTIONS, rules=rules)
    try:
        house.overwrite(ITEMS, house.read(ITEMS).withColumn("item_id", F.lit(None).cast("string")))
        breach = ""
    except ValueError as error:
        breach = str(error)
    same = correct_days(
        house, ITEM_COUNTERS, house.read(ITEM_COUNTERS), start=day(1), end=day(DAYS)
    )
    seconds["all"] = time.monotonic() - began
    line = {
        "spark": type(spark).__module__,
        "merged": [merged.num_rows, merged.changed],
        "rules": len(found.results),
        "observed": {result.name: [result.success, result.observed] for result in found.results},
        "breach": breach,
        "corrected": len(same.days),
        "feed": sorted(map(repr, feed_rows())),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    spark.stop()  # else a client asks for its server until long after that has ended
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def feed_rows() -> list[object]:
    """Return a few rows of the simulated feed, which Python workers make."""
    source = Platform().source()
    return list(source.users().orderBy("user_id").limit(5).collect())


if __name__ == "__main__":
    sys.exit(main())
