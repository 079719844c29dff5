"""Run one engine of the table benchmark in a process of its own.

Reads a plan as JSON: engine, log (a plan of tables_log.py), folder (scratch and output), cache
(where logs are), repeats, limit_bytes, partitions. Every line on standard output is JSON:
`ready` after a warm-up on a tiny log; after each run `seconds`, `began_ms` (since 1970) and what
the engine says of itself; `failed` if the engine gave up.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.settings import Settings
from tests.benchmarks.tables_log import LogPlan, RawLog, make_log
from tests.benchmarks.tables_ranklake import run_increment, run_ranklake
from tests.benchmarks.tables_rivals import run_duckdb, run_polars, run_pyspark
from tests.benchmarks.tables_stages import event_log_options
from tests.benchmarks.tables_watch import OUT_OF_MEMORY

TINY = LogPlan(events=20_000, days=10)
_OUT_OF_MEMORY = ("OutOfMemory", "Out of Memory", "MemoryError", "java.lang.OutOfMemoryError")
_DUCKDB_SHARE = 0.75

_PRODUCT = {"ranklake": run_ranklake, "increment": run_increment}

Run = Callable[[RawLog, Path], Any]


def main() -> int:
    """Carry out the plan in the first argument."""
    plan = json.loads(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    folder, cache = Path(plan["folder"]), Path(plan["cache"])
    try:
        run = _engine(plan, folder)
        run(make_log(TINY, cache), _empty(folder / "warm-up"))
        say(ready=True)
        log = make_log(LogPlan(**plan["log"]), cache)
        for _ in range(plan["repeats"]):
            output = _empty(folder / "output")
            began_ms, started = time.time() * 1000, time.monotonic()
            facts = run(log, output) or {}
            seconds = facts.pop("increment_seconds", time.monotonic() - started)
            say(seconds=seconds, began_ms=began_ms, **facts)
    except Exception as error:
        if not any(name in f"{type(error).__name__}: {error}" for name in _OUT_OF_MEMORY):
            raise
        say(failed=OUT_OF_MEMORY)
    return 0


def _engine(plan: dict[str, Any], folder: Path) -> Run:
    name = plan["engine"]
    if name == "duckdb":
        memory = int(plan["limit_bytes"] * _DUCKDB_SHARE)
        return lambda log, output: run_duckdb(
            log,
            output,
            scratch=folder / "scratch",
            memory_bytes=memory,
            events=plan["log"]["events"],
        )
    if name == "polars":
        return run_polars
    if name == "pyspark":
        spark = _plain_session(folder, plan["partitions"])
        return lambda log, output: run_pyspark(spark, log, output)
    if name in _PRODUCT:
        spark = _product_session(folder, plan["partitions"])
        return lambda log, output: _PRODUCT[name](spark, log, output)
    raise ValueError(f"unknown engine {name!r}")


def _plain_session(folder: Path, partitions: int) -> Any:
    """Start Spark as a script would, with three quarters of the memory as its heap."""
    from pyspark.sql import SparkSession

    options = {
        "spark.driver.memory": "6g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(folder / "scratch"),
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.ui.enabled": "false",
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -Duser.timezone=UTC",
    }
    builder = SparkSession.builder.appName("script").master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _product_session(folder: Path, partitions: int) -> Any:
    """Start ranklake's own session, with half of the memory as its heap; Python has the rest."""
    from infra.spark import spark_session

    os.environ["PYSPARK_SUBMIT_ARGS"] = event_log_options(folder / "event-log")
    own = {
        **os.environ,
        "RANKLAKE_HOME": str(folder / "home"),
        "RANKLAKE_DRIVER_MEMORY": "4g",
        "RANKLAKE_SHUFFLE_PARTITIONS": str(partitions),
    }
    return spark_session(Settings.from_env(own))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def say(**facts: Any) -> None:
    """Print facts as one line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
