"""Local days and dayparts of UTC instants, independent of the session's time zone.

Each function takes a `timestamp` column and an IANA zone name and reads the wall clock of that
zone, daylight saving included. In the hour that autumn repeats, two instants an hour apart share
one wall-clock hour; the hour that spring skips never occurs.
"""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pyspark.sql import Column
from pyspark.sql import functions as F

_HOUR_SECONDS = 3600
_DAY_SECONDS = 86_400
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


def _wall_clock_seconds(time: Column, zone: str) -> Column:
    return F.unix_seconds(F.from_utc_timestamp(time, zone))


def _wall_clock_days(time: Column, zone: str) -> Column:
    return F.floor(_wall_clock_seconds(time, zone) / _DAY_SECONDS).cast("int")


def local_date(time: Column, *, zone: str) -> Column:
    """Return the calendar day of an instant in a zone, as a date."""
    return F.date_add(F.lit(date(1970, 1, 1)), _wall_clock_days(time, zone))


def local_hour(time: Column, *, zone: str) -> Column:
    """Return the wall-clock hour of an instant in a zone, 0 to 23."""
    hours = F.floor(_wall_clock_seconds(time, zone) / _HOUR_SECONDS)
    return F.pmod(hours, F.lit(24)).cast("int")


def local_weekday(time: Column, *, zone: str) -> Column:
    """Return the weekday of an instant in a zone, 0 = Monday to 6 = Sunday."""
    days = _wall_clock_days(time, zone)
    return F.pmod(days + _EPOCH_WEEKDAY, F.lit(7)).cast("int")


def seconds_to_midnight(time: Column, *, zone: str) -> Column:
    """Return the wall-clock seconds from an instant to the end of its local day, whole ones."""
    return _DAY_SECONDS - F.pmod(_wall_clock_seconds(time, zone), F.lit(_DAY_SECONDS))


def start_of_day(day: Column, *, zone: str) -> Column:
    """Return the instant at which a local day begins: its midnight, or what follows a gap there."""
    midnight = F.timestamp_seconds(F.unix_date(day) * F.lit(_DAY_SECONDS))
    return F.to_utc_timestamp(midnight, zone)


def end_of_day(day: date, *, zone: str) -> datetime:
    """Return the instant at which a local day ends: the next day's midnight in the zone."""
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time())
    return midnight.replace(tzinfo=ZoneInfo(zone))
