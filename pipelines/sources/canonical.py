"""From a source's strings to canonical columns: numbers, flags, instants, days and row ids.

Every conversion yields null for what it cannot read and never raises. Nothing here depends on
the time zone of the Spark session.
"""

from datetime import UTC, date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.daypart import local_date
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import RAW_EVENTS

MICROS_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
# Times outside cannot be handed to every reader of the tables; they count as unreadable.
_EARLIEST = int(datetime(1900, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_LATEST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_OFF, _ON = ("0", "", "false", "0.0"), ("1", "true", "1.0")
_ISO_DAY = r"^\d{4}-\d{2}-\d{2}$"
_ISO_OFFSET = r"(?i)[T ]\d.*(z|[+-]\d{2}(:?\d{2})?)$"
_ZONE_LETTERS = frozenset("VzOXxZ")


def row_id(*values: Column) -> Column:
    """Hash values into 16 hexadecimal digits that are the same on every run.

    Equal rows collide on purpose: cleaning finds duplicates by it. The place of a null counts.
    """
    filled = [F.coalesce(value.cast("string"), F.lit("\x00")) for value in values]
    return F.lpad(F.lower(F.hex(F.xxhash64(*filled))), 16, "0")


def present(text: Column) -> Column:
    """Return whether a string holds anything but blanks; never null."""
    return F.coalesce(F.length(F.trim(text)) > 0, F.lit(False))


def identifier(text: Column) -> Column:
    """Return a trimmed identifier, null where there is none."""
    return F.when(present(text), F.trim(text))


def whole_number(text: Column, *, scale: float = 1) -> Column:
    """Read a number, multiply it and round it to a long."""
    return F.round(F.trim(text).try_cast("double") * F.lit(float(scale))).try_cast("bigint")


def flag(text: Column) -> Column:
    """Read 0/1, 0.0/1.0 or true/false; empty is false, anything else null."""
    trimmed = F.lower(F.trim(F.coalesce(text, F.lit(""))))
    return F.when(trimmed.isin(*_OFF), F.lit(False)).when(trimmed.isin(*_ON), F.lit(True))


def epoch_instant(text: Column, *, unit: str) -> Column:
    """Read a number of seconds (s), milliseconds (ms) or microseconds (us) since 1970 in UTC.

    Fractions are kept to the microsecond. Times before 1900 or from 2200 on are null.
    """
    number = F.trim(text).try_cast("decimal(38,6)")
    micros = F.try_multiply(number, F.lit(MICROS_PER_UNIT[unit])).try_cast("bigint")
    return F.when(micros.between(_EARLIEST, _LATEST - 1), F.timestamp_micros(micros))


def written_instant(text: Column, *, pattern: str, zone: str) -> Column:
    """Read a written time.

    A local time that a zone's clock shows twice is taken as the earlier instant; one that it
    skips is moved forward by the length of the gap.

    Args:
        text: The written times.
        pattern: Spark's datetime pattern, or "iso" for ISO 8601.
        zone: IANA zone of times that carry no offset of their own.
    """
    trimmed = F.trim(text)
    if pattern == "iso":
        full = F.when(trimmed.rlike(_ISO_DAY), F.concat(trimmed, F.lit("T00:00:00")))
        written = F.coalesce(full, trimmed)
        zoned = F.when(~written.rlike(_ISO_OFFSET), F.concat(written, F.lit(f" {zone}")))
        parsed = F.coalesce(zoned, written).try_cast("timestamp")
    elif _ZONE_LETTERS & set("".join(pattern.split("'")[::2])):
        parsed = F.try_to_timestamp(trimmed, F.lit(pattern))
    else:
        zoned = F.concat(trimmed, F.lit(f" {zone}"))
        parsed = F.try_to_timestamp(zoned, F.lit(f"{pattern} VV"))
    micros = F.unix_micros(parsed)
    return F.when(micros.between(_EARLIEST, _LATEST - 1), parsed)


def string_map(values: dict[str, Column]) -> Column:
    """Build a map of strings without its absent values; empty where all are absent."""
    if not values:
        return F.create_map().cast("map<string,string>")
    pairs = [part for name, value in values.items() for part in (F.lit(name), value)]
    return F.map_filter(F.create_map(*pairs), lambda _, value: present(value))


def names_of(flags: dict[str, Column]) -> Column:
    """Return the names whose flag is true, in order."""
    named = [F.when(is_on, F.lit(name)) for name, is_on in flags.items()]
    return F.array_compact(F.array(*named))


def as_raw_events(
    frame: DataFrame, *, manifest: SourceManifest, start: date, end: date
) -> DataFrame:
    """Complete canonical rows to the raw_events contract and keep those of a range of days.

    A row is filed under its local day; one whose time is absent or outside the manifest's range
    is filed under the manifest's first day, so that it is counted once and can be rejected.

    Args:
        frame: Some of the columns of raw_events, without event_date.
        manifest: The source's manifest.
        start: First day to keep.
        end: Last day to keep, inclusive.
    """
    day = local_date(F.col("event_time"), zone=manifest.timezone)
    first_day = F.lit(manifest.start_date)
    filed = F.when(day.between(first_day, F.lit(manifest.end_date)), day).otherwise(first_day)
    absent = {
        name: F.lit(None).cast(kind)
        for name, kind in RAW_EVENTS.columns
        if name not in frame.columns
    }
    dated = frame.withColumns(absent | {"event_date": filed})
    kept = dated.where(F.col("event_date").between(F.lit(start), F.lit(end)))
    return kept.select(*(F.col(name).cast(kind) for name, kind in RAW_EVENTS.columns))
