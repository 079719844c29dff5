"""The range of days and the splits of a log, found in one pass over it.

Rows are counted in bins of a quarter of an hour (every zone's midnight starts one). Rows whose
clock was plainly wrong must not stretch the range: an outermost stretch of bins that more than a
year separates from the rest, and that holds at most 5% of the rows, is left out of the range
(its rows are then filed under the first day and rejected by cleaning).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from pipelines.sources.errors import SourceError
from pipelines.sources.files import readable
from pipelines.sources.manifest import SourceManifest

BIN_SECONDS = 900
VALIDATION_QUANTILE, TEST_QUANTILE = 0.8, 0.9
_ISLAND_GAP_SECONDS = 365 * 86_400
_ISLAND_FRACTION = 0.05
_MAX_LISTED = 1_000
_MONTHLY_FROM_DAYS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSpan:
    """Hold what one pass over a log tells.

    Attributes:
        num_rows: All rows, also those without a readable time.
        starts: Ascending starts of the bins in the range, seconds since 1970.
        counts: Rows of each of these bins.
        surfaces: Distinct surfaces, sorted.
        actions: Distinct action names, sorted.
        example: Text of the time of one row, readable if any row's is.
        last_arrival: Latest time at which a row arrived; None if no row says it readably.
        arrival_example: Text of the arrival of one row; None if no row has one.
    """

    num_rows: int
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    surfaces: tuple[str, ...]
    actions: tuple[str, ...]
    example: str | None
    last_arrival: datetime | None = None
    arrival_example: str | None = None

    def days(self, *, zone: str) -> tuple[date, date]:
        """Return the first and the last local day."""
        ends = (self.starts[0], self.starts[-1])
        first, last = (datetime.fromtimestamp(second, ZoneInfo(zone)).date() for second in ends)
        return first, last

    def partition_unit(self, *, zone: str) -> str:
        """Return "month" for a log of 400 days or more, else "day"."""
        first, last = self.days(zone=zone)
        return "month" if (last - first).days >= _MONTHLY_FROM_DAYS else "day"

    def quantile(self, fraction: float) -> datetime:
        """Return the time, in whole seconds, below which a fraction of the rows lie.

        Interpolates linearly inside a bin, so it is exact to less than a quarter of an hour.
        """
        target = fraction * sum(self.counts)
        below = 0
        for start, count in zip(self.starts, self.counts, strict=True):
            if below + count >= target:
                second = start + int(BIN_SECONDS * (target - below) / count)
                return datetime.fromtimestamp(second, UTC)
            below += count
        return datetime.fromtimestamp(self.starts[-1] + BIN_SECONDS, UTC)


def measure(log: DataFrame) -> LogSpan:
    """Count a log's rows by time and list its surfaces and actions.

    Args:
        log: event_time, time_text (the time as written), surface, actions (array of names); and
            arrival_time and arrival_text where the log has them.

    Returns:
        The span; without starts where no row has a readable time.
    """
    # try_divide and floor keep rows before 1970 in their own bins.
    place = F.floor(F.unix_seconds("event_time") / BIN_SECONDS)
    listed = F.array_distinct(F.flatten(F.collect_set("actions")))
    arrivals = (
        [
            F.unix_seconds(F.max("arrival_time")).alias("arrival"),
            F.min("arrival_text").alias("came"),
        ]
        if "arrival_text" in log.columns
        else []
    )
    rows = (
        log.groupBy(place.alias("place"))
        .agg(
            F.count(F.lit(1)).alias("num_rows"),
            F.slice(F.collect_set("surface"), 1, _MAX_LISTED).alias("surfaces"),
            F.slice(listed, 1, _MAX_LISTED).alias("actions"),
            F.min("time_text").alias("example"),
            *arrivals,
        )
        .collect()
    )
    dated = sorted((row for row in rows if row["place"] is not None), key=lambda row: row["place"])
    bins = [(row["place"] * BIN_SECONDS, row["num_rows"]) for row in dated]
    kept = _without_islands(_without_islands(bins)[::-1])[::-1]
    middle = dated[len(dated) // 2] if dated else (rows[0] if rows else None)
    return LogSpan(
        num_rows=sum(row["num_rows"] for row in rows),
        starts=tuple(start for start, _ in kept),
        counts=tuple(count for _, count in kept),
        surfaces=tuple(sorted({name for row in rows for name in row["surfaces"]})),
        actions=tuple(sorted({name for row in rows for name in row["actions"]})),
        example=middle["example"] if middle else None,
        **_arrivals(rows if arrivals else []),
    )


def _arrivals(rows: list[Row]) -> dict[str, Any]:
    seconds = [row["arrival"] for row in rows if row["arrival"] is not None]
    texts = [row["came"] for row in rows if row["came"] is not None]
    last = datetime.fromtimestamp(max(seconds), UTC) if seconds else None
    return {"last_arrival": last, "arrival_example": min(texts, default=None)}


def measure_files(log: DataFrame, *, files: Sequence[Path], written: str) -> LogSpan:
    """Measure a log as `measure` does, and insist that it holds rows with readable times.

    Args:
        log: event_time, time_text, surface and, where they are to be listed, actions.
        files: Files or folder that the log was read from, for messages.
        written: How its times should be written, for messages.

    Raises:
        SourceError: If the log cannot be read, is empty, or no time in it can be read.
    """
    if "actions" not in log.columns:
        log = log.withColumn("actions", F.array().cast("array<string>"))
    named = ", ".join(str(file) for file in files)
    with readable(named):
        span = measure(log)
    if not span.num_rows:
        raise SourceError(f"{named} has no rows; fetch it again")
    if not span.starts:
        raise SourceError(
            f"no time of {named} can be read as {written}, for example {span.example!r}; "
            "fetch it again"
        )
    return span


def describe_span(
    span: LogSpan, *, zone: str, columns: Mapping[str, str], **facts: Any
) -> SourceManifest:
    """Describe a measured log: its days, its splits and its columns, beside what its source says.

    The validation and the test split start at the 0.8 and the 0.9 quantile of the times.

    Args:
        span: What one pass over the log told; with starts.
        zone: IANA zone of the days.
        columns: Columns of the source's files with their types.
        facts: Further fields of `SourceManifest`; `partition_unit` is told by the log's length
            where it is not one of them.
    """
    first_day, last_day = span.days(zone=zone)
    facts.setdefault("partition_unit", span.partition_unit(zone=zone))
    return SourceManifest(
        start_date=first_day,
        end_date=last_day,
        validation_start=span.quantile(VALIDATION_QUANTILE),
        test_start=span.quantile(TEST_QUANTILE),
        timezone=zone,
        columns=dict(columns),
        **facts,
    )


def _without_islands(bins: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop the leading bins that are few and more than a year away from all that follow."""
    budget = _ISLAND_FRACTION * sum(count for _, count in bins)
    seen, kept_from = 0, 0
    for place, (current, following) in enumerate(pairwise(bins)):
        seen += current[1]
        if seen > budget:
            break
        if abs(following[0] - current[0]) > _ISLAND_GAP_SECONDS:
            kept_from = place + 1
    return bins[kept_from:]
