"""The table benchmark's job in DuckDB, in Polars and as a straightforward PySpark script.

tables.py says what the job is. Of each rival the fastest of several ways of saying it was taken
(by processor time at 5M events); DuckDB's `max(struct, 200)` and Polars' sorted group keys were
level or slower once sessions are asked for.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.tables_log import RawLog

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyspark.sql import DataFrame, SparkSession

MAX_EVENTS = 200
GAP_MINUTES = 30
# Of rows with one user and event id the greatest wins, column by column.
ORDER = ("arrival_date", "event_time", "action_bits", "item_id")
LISTS = ("item_index", "category_index", "event_time", "action_bits", "session_index")

_DUCKDB = """
COPY (
  WITH kept AS (
    SELECT user_id, event_id, event_time, item_id, action_bits
    FROM read_parquet({events})
    QUALIFY 1 = row_number() OVER (
      PARTITION BY user_id, event_id
      ORDER BY CAST(arrival_time AT TIME ZONE 'UTC' AS DATE) DESC, event_time DESC,
        action_bits DESC, item_id DESC)
  ),
  aged AS (
    SELECT
      user_id, event_time, action_bits,
      coalesce(item_index, 0) AS item_index, coalesce(category_index, 0) AS category_index,
      row_number() OVER newest_first AS age,
      event_time - lead(event_time) OVER newest_first AS gap
    FROM kept LEFT JOIN read_parquet('{items}') USING (item_id)
    WINDOW newest_first AS (PARTITION BY user_id ORDER BY event_time DESC, event_id DESC)
    QUALIFY age <= {max_events}
  ),
  numbered AS (
    SELECT *, sum(CASE WHEN gap <= INTERVAL {gap} MINUTE THEN 0 ELSE 1 END) OVER (
      PARTITION BY user_id ORDER BY age DESC ROWS UNBOUNDED PRECEDING) AS session
    FROM aged
  ),
  collected AS (
    SELECT user_id, list({{
      'i': item_index, 'c': category_index, 't': event_time, 'a': action_bits, 's': session
    }} ORDER BY age DESC) AS rows
    FROM numbered GROUP BY user_id
  )
  SELECT
    user_id, len(rows)::INT AS num_events,
    [r.i FOR r IN rows] AS item_index, [r.c FOR r IN rows] AS category_index,
    [r.t FOR r IN rows] AS event_time, [r.a FOR r IN rows] AS action_bits,
    [(r.s - rows[1].s + 1)::INT FOR r IN rows] AS session_index
  FROM collected
) TO '{output}' (FORMAT parquet, COMPRESSION zstd)
"""


# DuckDB gives up at 10M events within 6 GiB, for its windows and lists do not all spill; so users
# of more than 5M events are first shared out among files, and the query is asked file by file.
_DUCKDB_BUCKETS = """
COPY (
  SELECT user_id, event_id, event_time, arrival_time, item_id, action_bits,
    hash(user_id) % {buckets} AS bucket
  FROM read_parquet({events})
) TO '{folder}' (FORMAT parquet, PARTITION_BY bucket)
"""
_DUCKDB_EVENTS = 5_000_000


def run_duckdb(log: RawLog, output: Path, *, scratch: Path, memory_bytes: int, events: int) -> None:
    """Run the job in DuckDB with two threads, spilling to `scratch`.

    Args:
        log: The raw log.
        output: Folder for the files.
        scratch: Folder for what does not fit.
        memory_bytes: DuckDB's own limit, which leaves out a part of what it holds.
        events: Rows of the log.
    """
    import duckdb

    output.mkdir(parents=True)
    parts = [list(log.days)]
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute(f"SET memory_limit = '{memory_bytes // 2**20}MiB'")
        connection.execute(f"SET temp_directory = '{scratch}'")
        connection.execute("SET preserve_insertion_order = false")
        if events > _DUCKDB_EVENTS:
            buckets = -(-events // _DUCKDB_EVENTS)
            parts = _share_out(connection, log, folder=scratch / "buckets", buckets=buckets)
        for number, part in enumerate(parts):
            connection.execute(
                _DUCKDB.format(
                    events=_names(part),
                    items=log.items,
                    max_events=MAX_EVENTS,
                    gap=GAP_MINUTES,
                    output=output / f"part-{number:03}.parquet",
                )
            )


def _share_out(
    connection: "DuckDBPyConnection", log: RawLog, *, folder: Path, buckets: int
) -> list[list[Path]]:
    """Write the log into so many lists of files, the rows of a user into one of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    connection.execute(
        _DUCKDB_BUCKETS.format(buckets=buckets, events=_names(log.days), folder=folder)
    )
    return [sorted(each.iterdir()) for each in sorted(folder.iterdir())]


def _names(files: Sequence[Path]) -> list[str]:
    return [str(path) for path in files]


def run_polars(log: RawLog, output: Path) -> None:
    """Run the job in Polars: lazy, on the streaming engine; POLARS_MAX_THREADS is the caller's."""
    import polars as pl

    output.mkdir(parents=True)
    raw = pl.scan_parquet(list(log.days)).select(
        "user_id",
        "event_id",
        "event_time",
        "item_id",
        "action_bits",
        pl.col("arrival_time").dt.date().alias("arrival_date"),
    )
    kept = raw.sort(*ORDER).unique(["user_id", "event_id"], keep="last", maintain_order=False)
    joined = kept.join(pl.scan_parquet(log.items), on="item_id", how="left").with_columns(
        pl.col("item_index", "category_index").fill_null(0)
    )
    newest = joined.group_by("user_id").agg(
        pl.col(*LISTS[:-1]).sort_by("event_time", "event_id").tail(MAX_EVENTS)
    )
    opens = (pl.element().diff() > pl.duration(minutes=GAP_MINUTES)).fill_null(True)
    newest.select(
        "user_id",
        pl.col("item_index").list.len().cast(pl.Int32).alias("num_events"),
        *LISTS[:-1],
        pl.col("event_time").list.eval(opens.cast(pl.Int32).cum_sum()).alias("session_index"),
    ).sink_parquet(output / "part.parquet", compression="zstd", engine="streaming")


def run_pyspark(spark: "SparkSession", log: RawLog, output: Path) -> None:
    """Run the job as a straightforward PySpark script would: windows, then collect_list."""
    _pyspark_frame(spark, log).write.option("compression", "zstd").parquet(str(output))


def _pyspark_frame(spark: "SparkSession", log: RawLog) -> "DataFrame":
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    raw = spark.read.parquet(*(str(path) for path in log.days)).withColumn(
        "arrival_date", F.to_date("arrival_time")
    )
    same_key = Window.partitionBy("user_id", "event_id")
    greatest_first = same_key.orderBy(*(F.col(name).desc() for name in ORDER))
    kept = raw.withColumn("place", F.row_number().over(greatest_first)).where("place = 1")
    joined = kept.join(spark.read.parquet(str(log.items)), on="item_id", how="left").fillna(
        0, ["item_index", "category_index"]
    )
    of_user = Window.partitionBy("user_id")
    in_time = of_user.orderBy("event_time", "event_id")
    newest_first = of_user.orderBy(F.desc("event_time"), F.desc("event_id"))
    gap = F.col("event_time") - F.lag("event_time").over(in_time)
    opens = F.when(gap <= F.expr(f"INTERVAL {GAP_MINUTES} MINUTES"), 0).otherwise(1)
    newest = (
        joined.withColumn("opens", opens)
        .withColumn("session_index", F.sum("opens").over(in_time))
        .withColumn("age", F.row_number().over(newest_first))
        .where(F.col("age") <= MAX_EVENTS)
    )
    element = F.struct("event_time", "event_id", *(n for n in LISTS if n != "event_time"))
    rows = F.sort_array(F.collect_list(element))
    collected = newest.groupBy("user_id").agg(rows.alias("rows"))
    sessions = F.transform(
        "rows.session_index", lambda s: (s - F.col("rows")[0].session_index + 1).cast("int")
    )
    return collected.select(
        "user_id",
        F.size("rows").alias("num_events"),
        *(F.col(f"rows.{name}").alias(name) for name in LISTS[:-1]),
        sessions.alias("session_index"),
    )
