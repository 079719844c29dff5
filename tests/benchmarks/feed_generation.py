"""Seconds per million raw rows of the simulated feed, at two sizes: they must not rise.

Run: python -m tests.benchmarks.feed_generation [million impressions ...]; by default 1 and 5.
The long form of 100 is asked for by its number.
"""

import sys
import tempfile
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra.settings import Settings
from infra.spark import spark_session
from pipelines.sources.simulated_feed import describe, events
from tests.benchmarks.result_line import Goal, print_result

IMPRESSIONS_PER_USER = 72
GOALS = (Goal(figure="growth", op="<=", limit=1.2),)


def seconds_per_million(spark: SparkSession, *, users: int) -> float:
    """Return the seconds that a million raw rows of a feed take, written nowhere.

    Args:
        spark: A warm session.
        users: Size of the feed.
    """
    options = {"users": str(users)}
    manifest = describe(spark, None, options)
    rows = events(spark, None, manifest, options, start=manifest.start_date, end=manifest.end_date)
    started = time.perf_counter()
    # Every column is used, so that none is pruned.
    total = rows.select(F.xxhash64(*rows.columns).alias("hash")).agg(F.count("hash")).first()
    seconds = time.perf_counter() - started
    if total is None:
        raise RuntimeError("the feed gave no result; look for an error in Spark's log")
    return seconds / (total[0] / 1e6)


def main() -> int:
    """Measure each size in turn, after a small feed that warms the workers."""
    sizes = [float(argument) for argument in sys.argv[1:]] or [1.0, 5.0]
    figures: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as home:
        spark = spark_session(Settings.from_env({"RANKLAKE_HOME": home}))
        seconds_per_million(spark, users=512)
        for size in sizes:
            users = round(size * 1e6 / IMPRESSIONS_PER_USER)
            figures[f"seconds_per_million_at_{size:g}m"] = seconds_per_million(spark, users=users)
        spark.stop()
    measured = [value for value in figures.values() if value is not None]
    figures["growth"] = measured[-1] / measured[0] if len(measured) > 1 else None
    return 0 if print_result("feed-generation", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
