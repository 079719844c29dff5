"""The table benchmark's job by ranklake's own functions: the whole log, and one more day.

Whole: raw log -> join of the catalogue -> `cut_by_user` -> `Lakehouse.overwrite`, as the asset
`sequences` does with a wider schema. One more day: the day's rows become a segment, sorted by
user, by `Lakehouse.overwrite_partition`, and are held to their suite by the `QualityGate`; no other
file is written. Sequences are then the segments joined on read.
"""

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.expectations_segments import segment_rules
from infra.lakehouse import Lakehouse
from infra.quality import QualityGate
from infra.rules import Rule, contract_rules, rows_exist
from pipelines.contract import Table
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import SEQUENCE_EVENTS, SEQUENCES
from tests.benchmarks.tables_log import RawLog
from tests.benchmarks.tables_rivals import GAP_MINUTES, LISTS, MAX_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipelines.sequence_arrays import Cut

_SEGMENT_COLUMNS = (
    "event_id",
    "user_id",
    "item_id",
    "event_time",
    "event_date",
    "arrival_date",
    "action_bits",
)
SEGMENTS = Table(
    name=SEQUENCE_EVENTS.name,
    group="tables",
    row="one row of the raw log; copies are left to the join on read",
    columns=tuple((n, kind) for n, kind in SEQUENCE_EVENTS.columns if n in _SEGMENT_COLUMNS),
    key=("event_date", "user_id", "event_id"),
    partition_by="event_date",
    required=_SEGMENT_COLUMNS,
)
_KINDS = dict(SEQUENCES.columns) | {"category_index": "array<int>"}
ROWS = Table(
    name=SEQUENCES.name,
    group="tables",
    row="one user's newest events, oldest first",
    columns=tuple((name, _KINDS[name]) for name in ("user_id", "num_events", *LISTS)),
    key=("user_id",),
    required=("user_id", "num_events"),
)


def run_ranklake(spark: "SparkSession", log: RawLog, output: Path) -> dict[str, Any]:
    """Build the rows of a whole log; return the bytes written."""
    raw = spark.read.parquet(*(str(path) for path in log.days))
    commit = _write_rows(spark, _filed(raw), log, output)
    return {"written_bytes": commit}


def run_increment(spark: "SparkSession", log: RawLog, output: Path) -> dict[str, Any]:
    """Add the last day to segments of all others, check it, and read the rows of all days.

    Returns:
        increment_seconds (the write and the checks), read_seconds (segments joined on read, and
        written), written_bytes and segment_bytes, touched_fraction of the users, and broken, the
        names of the rules that do not hold.
    """
    house = Lakehouse(output / "segments", spark)
    gate = QualityGate(output / "quality", docs=output / "docs")
    spans = [_span(spark, days) for days in (log.days[:-2], log.days[-2:-1], log.days[-1:])]
    manifest = _manifest(spans[0][0], spans[-1][1])
    _append(house, gate, manifest, log.days[:-2], span=spans[0])
    # The day before is taken in as well, so that the process is warm when the clock starts.
    _append(house, gate, manifest, log.days[-2:-1], span=spans[1])
    started = time.monotonic()
    commit, broken = _append(house, gate, manifest, log.days[-1:], span=spans[2])
    increment_seconds = time.monotonic() - started
    segments = house.read(SEGMENTS)
    started = time.monotonic()
    _write_rows(spark, segments, log, output)
    read_seconds = time.monotonic() - started
    users = segments.select("user_id").distinct().count()
    touched = segments.where(f"event_date = DATE'{spans[2][0]}'").select("user_id").distinct()
    return {
        "increment_seconds": increment_seconds,
        "read_seconds": read_seconds,
        "written_bytes": commit.num_bytes,
        "segment_bytes": commit.state.bytes if commit.state else 0,
        "touched_fraction": touched.count() / users,
        "broken": broken,
    }


def _append(
    house: Lakehouse,
    gate: QualityGate,
    manifest: SourceManifest,
    days: tuple[Path, ...],
    *,
    span: tuple[date, date],
) -> tuple[Any, list[str]]:
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = SparkSession.active()
    raw = spark.read.parquet(*(str(path) for path in days))
    rows = _filed(raw).select(*(F.col(n).cast(kind) for n, kind in SEGMENTS.columns))
    by_day = rows.hint("rebalance", "event_date").sortWithinPartitions("event_date", "user_id")
    commit = house.overwrite_partition(SEGMENTS, by_day, start=span[0], end=span[1])
    if len(days) > 1:
        return commit, []
    written = house.read(SEGMENTS).where(f"event_date = DATE'{span[0]}'")
    found = gate.validate(written, SEGMENTS, rules=_rules(manifest))
    return commit, [result.name for result in (*found.broken, *found.warned)]


def _rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of segments that speak of the columns that are here."""
    absent = set(SEQUENCE_EVENTS.column_names) - set(_SEGMENT_COLUMNS)
    known = (r for r in segment_rules(manifest) if not any(r.looks_at(name) for name in absent))
    return (rows_exist(), *contract_rules(SEGMENTS, has_unique_key=False), *known)


def _filed(raw: "DataFrame") -> "DataFrame":
    from pyspark.sql import functions as F

    return raw.withColumn("arrival_date", F.to_date("arrival_time"))


def _write_rows(spark: "SparkSession", events: "DataFrame", log: RawLog, output: Path) -> int:
    from pyspark.sql import functions as F

    from pipelines.sequences import cut_by_user
    from pipelines.timelines import moment_of

    items = spark.read.parquet(str(log.items))
    known = {name: F.coalesce(name, F.lit(0)) for name in ("item_index", "category_index")}
    narrow = (
        events.withColumn("history_place", F.lit(None).cast("int"))
        .withColumn("moment", moment_of())
        .join(items, on="item_id", how="left")
        .withColumns(known)
        .select("user_id", "event_id", "arrival_date", "moment", "action_bits", *known)
    )
    frame = cut_by_user(narrow, cut=_cut(), schema=ROWS.schema)
    return Lakehouse(output / "rows", spark).overwrite(ROWS, frame).num_bytes


def _cut() -> "Cut":
    """Return a cut that knows one split: all events are before the others begin."""
    from pipelines.sequence_arrays import Cut

    never = 2**62
    return Cut(
        validation_start_micros=never,
        test_start_micros=never + 1,
        mature_until_micros=never,
        session_gap_micros=timedelta(minutes=GAP_MINUTES) // timedelta(microseconds=1),
        max_events=MAX_EVENTS,
    )


def _span(spark: "SparkSession", days: tuple[Path, ...]) -> tuple[date, date]:
    """Return the first and the last day of files that hold one day each, oldest first."""
    ends = (days[0], days[-1])
    first, last = (spark.read.parquet(str(path)).select("event_date").first() for path in ends)
    assert first is not None and last is not None
    return first[0], last[0]


def _manifest(start: date, end: date) -> SourceManifest:
    after = datetime(end.year, end.month, end.day, tzinfo=UTC) + timedelta(days=1)
    return SourceManifest(
        source="bench",
        actions=("click", "like", "share", "save"),
        primary_action="click",
        positive_actions=("click",),
        surfaces=(),
        start_date=start,
        end_date=end,
        validation_start=after,
        test_start=after + timedelta(days=1),
    )
