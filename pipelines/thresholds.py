"""How much the rules of data quality tolerate; the contracts they belong to are in tables.py.

Contracts say what a row must be, and no row may break that. Thresholds say how many rows may be
odd, and how far a day may differ from the week before it, before somebody must look.
"""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class TableThresholds:
    """Hold the tolerances of rules on the rows of one table.

    Attributes:
        odd_raw_fraction: Share of raw rows that may lack a value or hold an improper one.
        shuffled_fraction: Largest share of uniformly shuffled rows; more is no exploration.
        primary_fraction_low: Smallest share of interactions with the primary action.
        primary_fraction_high: Largest such share where the log has impressions.
        embedding_norm_slack: How far an embedding's length may be from 1.
        clock_tolerance_seconds: How long before its time a raw row may have arrived.
    """

    odd_raw_fraction: float = 0.1
    shuffled_fraction: float = 0.5
    primary_fraction_low: float = 0.0001
    primary_fraction_high: float = 0.9999
    embedding_norm_slack: float = 1e-3
    clock_tolerance_seconds: int = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class DayThresholds:
    """Hold how far a day may differ from the days before it.

    A day's totals vary with its users, not with its rows: one user's visit brings many rows. So
    a day is judged only if it and its trailing days have enough users each.

    Attributes:
        trailing_days: Calendar days before a day that it is compared with.
        min_days: Trailing days with rows below which nothing is compared.
        min_users: Median users of a trailing day below which nothing is compared.
        min_rows: Raw rows of a day below which its share of rejected rows says nothing.
        row_ratio_low: Smallest ratio of a day's raw rows to the trailing median.
        row_ratio_high: Largest such ratio.
        rows_per_user_high: Largest ratio of rows per user to the trailing median, and of its
            inverse.
        rate_change: Largest relative change of an action's rate, either way.
        rate_deviations: Standard errors, a user counting once, that a change must also reach.
        rejected_fraction: Largest share of a day's raw rows that are rejected; above, a warning,
            as a log may be so on every day.
        share_rise: Largest rise above the trailing median of the share of raw rows that are
            rejected, repeat another, lack an id or name an unknown item.
        quiet: Longest silence between a day's newest event and its end.
    """

    trailing_days: int = 7
    min_days: int = 3
    min_users: int = 50
    min_rows: int = 200
    row_ratio_low: float = 0.5
    row_ratio_high: float = 1.75
    rows_per_user_high: float = 1.75
    rate_change: float = 0.3
    rate_deviations: float = 4.0
    rejected_fraction: float = 0.25
    share_rise: float = 0.1
    quiet: timedelta = timedelta(hours=6)

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a bound contradicts another.
        """
        if not 0 <= self.row_ratio_low < 1 < self.row_ratio_high:
            raise ValueError("row_ratio_low must be below 1 and row_ratio_high above it")
        if not 1 <= self.min_days <= self.trailing_days:
            raise ValueError("min_days must be at least 1 and at most trailing_days")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Hold all tolerances of one source."""

    tables: TableThresholds = field(default_factory=TableThresholds)
    days: DayThresholds = field(default_factory=DayThresholds)


_DEFAULT = Thresholds()
# A source that differs from the defaults, with what differs and why.
_BY_SOURCE: dict[str, Thresholds] = {}


def thresholds(source: str) -> Thresholds:
    """Return the tolerances of a source, the defaults where it has none of its own.

    Args:
        source: Name of the source adapter.
    """
    return _BY_SOURCE.get(source, _DEFAULT)
