"""One run of the tables with the Spark and the lake that the environment names.

A process holds either a classic session or one of Spark Connect; so each kind is a process. What
it found besides the lake itself is printed as one line of JSON.
"""

import json
import sys
import time
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra.changed_days import correct_days
from infra.expectations import suite
from infra.quality import QualityGate
from infra.settings import Settings
from infra.spark import spark_session
from pipelines.sources import simulated_feed
from pipelines.tables import INTERACTIONS, ITEM_COUNTERS, ITEMS
from tests.assets.arrival_log import DAYS, MANIFEST, day, draw_log
from tests.assets.interleaving import Lake


def main() -> int:
    """Observe the session that the environment names, and print what was seen."""
    settings = Settings.from_env()
    spark = spark_session(settings)
    line = observe(spark, settings)
    spark.stop()  # else a client asks for its server until long after that has ended
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def observe(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Run all days, the snapshots, a merge, a check of quality and a write that fails.

    Args:
        spark: The session, of any kind.
        settings: Where the lake is.
    """
    began = time.monotonic()
    lake = Lake(root=settings.lake, spark=spark)
    lake.run(draw_log(3), start=day(1), end=day(DAYS))
    lake.finish()
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
    return {
        "spark": type(spark).__module__,
        "merged": [merged.num_rows, merged.changed],
        "rules": len(found.results),
        "observed": {result.name: [result.success, result.observed] for result in found.results},
        "breach": breach,
        "corrected": len(same.days),
        "feed": _feed_rows(spark, settings),
        "seconds": round(time.monotonic() - began, 1),
    }


def _feed_rows(spark: SparkSession, settings: Settings) -> list[str]:
    """Return a few rows of the simulated feed, which Python workers make."""
    options = settings.source_options
    manifest = simulated_feed.describe(spark, None, options)
    users = simulated_feed.users(spark, None, manifest, options)
    return sorted(map(repr, users.orderBy("user_id").limit(5).collect()))


if __name__ == "__main__":
    sys.exit(main())
