"""Compare each day with the days just before it.

A day is compared with the median of its trailing days, so that one odd day among them does not
matter. Trailing days without rows do not count, and neither do days that somebody accepted as
odd. Where too few days or users are left, or the day itself was accepted, the comparison is null.
"""

from collections.abc import Collection
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.day_tables import INTERACTION_DAYS, RAW_DAYS
from pipelines.daypart import seconds_to_midnight
from pipelines.thresholds import DayThresholds


def raw_day_drift(
    statistics: DataFrame, *, zone: str, limits: DayThresholds, accepted: Collection[date] = ()
) -> DataFrame:
    """Compare each day's raw rows, rows per user and missing ids with the trailing days.

    The rows are compared with the same weekday of the week before where that is closer, so that
    a log that rests on Sundays is not odd on each of them.

    Args:
        statistics: Rows of `day_statistics.raw_day_statistics`.
        zone: IANA zone of the days.
        limits: How many days and users a comparison takes.
        accepted: Days that were looked at and accepted.

    Returns:
        Rows of `RAW_DAYS`.
    """
    days = _Trailing(accepted, limits, rows="raw_rows", users="raw_users")
    rows = F.col("raw_rows")
    median, week_before = days.median(rows), days.week_before(rows)
    is_closer = (F.abs(rows - week_before) < F.abs(rows - median)) & (week_before > 0)
    per_user = rows / F.nullif(F.col("raw_users"), F.lit(0))
    return statistics.withColumns(
        {
            "is_accepted": days.is_accepted,
            "row_ratio": days.judged(rows / F.when(is_closer, week_before).otherwise(median)),
            "rows_per_user_ratio": days.judged(per_user / days.median(per_user)),
            "nameless_rise": days.rise(F.col("nameless_rows")),
            "quiet_seconds": days.judged(seconds_to_midnight(F.col("newest_time"), zone=zone)),
        }
    ).select(*RAW_DAYS.column_names)


def interaction_day_drift(
    statistics: DataFrame,
    *,
    num_actions: int,
    limits: DayThresholds,
    accepted: Collection[date] = (),
) -> DataFrame:
    """Compare each day's refused rows and the rate of each action with the trailing days.

    Args:
        statistics: Rows of `day_statistics.day_statistics`.
        num_actions: Length of `action_counts`.
        limits: How many days, users and rows a comparison takes.
        accepted: Days that were looked at and accepted.

    Returns:
        Rows of `INTERACTION_DAYS`.
    """
    days = _Trailing(accepted, limits, rows="raw_rows", users="num_users")
    rejected = F.col("rejected_rows") / F.col("raw_rows")
    has_rows = (F.col("raw_rows") >= limits.min_rows) & ~days.is_accepted
    rates = [_rate(index, days) for index in range(num_actions)]
    return statistics.withColumns(
        {
            "is_accepted": days.is_accepted,
            "rejected_fraction": F.when(has_rows, rejected),
            "rejected_rise": days.rise(F.col("rejected_rows")),
            "repeated_rise": days.rise(F.col("repeated_rows")),
            "unknown_rise": days.rise(F.col("unknown_rows")),
            "rate_changes": F.array(*(change for change, _ in rates)),
            "rate_deviations": F.array(*(deviation for _, deviation in rates)),
        }
    ).select(*INTERACTION_DAYS.column_names)


def _rate(index: int, days: "_Trailing") -> tuple[Column, Column]:
    """Return an action's relative change and the change in standard errors.

    The users of a day are its independent draws, its rows are not; so the error is that of a
    share among as many users, of the day and of the median trailing day.
    """
    shown = F.nullif(F.col("num_interactions"), F.lit(0))
    rate = F.element_at("action_counts", index + 1) / shown
    usual = days.median(rate)
    draws = 1 / F.nullif(F.col("num_users"), F.lit(0)) + 1 / days.median(F.col("num_users"))
    error = F.sqrt(usual * (1 - usual) * draws)
    change = (rate - usual) / F.nullif(usual, F.lit(0.0))
    return days.judged(change), days.judged((rate - usual) / F.nullif(error, F.lit(0.0)))


class _Trailing:
    """Look at the days before each day; a frame of one row per day stays one."""

    def __init__(
        self, accepted: Collection[date], limits: DayThresholds, *, rows: str, users: str
    ) -> None:
        number = F.unix_date("event_date")
        self._window = Window.orderBy(number).rangeBetween(-limits.trailing_days, -1)
        self._week_before = Window.orderBy(number).rangeBetween(-7, -7)
        found = [F.col("event_date") == F.lit(day) for day in sorted(accepted)]
        self.is_accepted = reduce(Column.__or__, found, F.lit(False))
        self._counts = (F.col(rows) > 0) & ~self.is_accepted
        self._rows = F.col(rows)
        enough_users = self.median(F.col(users)) >= limits.min_users
        enough_days = F.size(self._values(F.col(rows))) >= limits.min_days
        self._is_judged = enough_users & enough_days & ~self.is_accepted

    def judged(self, value: Column) -> Column:
        """Return the value where there is enough to compare, else null."""
        return F.when(self._is_judged, value.cast("double"))

    def median(self, value: Column) -> Column:
        """Return the median of the trailing days, null without any."""
        values = F.array_sort(self._values(value))
        size = F.size(values)
        low, high = (F.get(values, F.floor(at / 2).cast("int")) for at in (size - 1, size))
        return (low + high) / 2

    def week_before(self, value: Column) -> Column:
        """Return the value of the same weekday of the week before, null without it."""
        return F.max(F.when(self._counts, value)).over(self._week_before)

    def rise(self, count: Column) -> Column:
        """Return by how much a count's share of the rows is above the trailing median."""
        share = count / F.nullif(self._rows, F.lit(0))
        return self.judged(share - self.median(share))

    def _values(self, value: Column) -> Column:
        return F.collect_list(F.when(self._counts, value)).over(self._window)
