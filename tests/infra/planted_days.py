"""Violations planted in the frames that only checks make, and the healthy days."""

from datetime import date

from pipelines.day_tables import INTERACTION_DAYS, RAW_DAYS
from pipelines.references import REFERENCES
from tests.infra.healthy_rows import Row, at
from tests.infra.planted import Planted, empty, missing, twice


def _raw_day(day: int) -> Row:
    return {
        "event_date": date(2026, 1, day),
        "raw_rows": 1000,
        "raw_users": 100,
        "nameless_rows": 2,
        "newest_time": at(day, 15),
        "is_accepted": False,
        "row_ratio": 1.02,
        "rows_per_user_ratio": 0.97,
        "nameless_rise": 0.0,
        "quiet_seconds": 60.0,
    }


def _day(day: int) -> Row:
    return {
        "event_date": date(2026, 1, day),
        "raw_rows": 1000,
        "kept_rows": 990,
        "rejected_rows": 10,
        "repeated_rows": 4,
        "unknown_rows": 1,
        "num_interactions": 800,
        "num_users": 100,
        "action_counts": [200, 20],
        "is_accepted": False,
        "rejected_fraction": 0.01,
        "rejected_rise": 0.001,
        "repeated_rise": -0.001,
        "unknown_rise": 0.0,
        "rate_changes": [0.05, -0.5],
        "rate_deviations": [5.0, -1.0],
    }


HEALTHY_DAYS: dict[str, list[Row]] = {
    RAW_DAYS.name: [_raw_day(8), _raw_day(9)],
    INTERACTION_DAYS.name: [_day(8), _day(9)],
    REFERENCES.name: [
        {"reference": f"{name} in items", "num_values": 9, "num_missing": 0} for name in "ab"
    ],
}
DAYS = [
    Planted(table=RAW_DAYS, name="rows_exist", change=empty),
    *missing(RAW_DAYS),
    Planted(table=RAW_DAYS, name="key_unique", change=twice),
    Planted(table=RAW_DAYS, name="event_date_in_range", change={"event_date": date(2026, 1, 11)}),
    Planted(table=RAW_DAYS, name="row_ratio_in_range", change={"row_ratio": 2.0}),
    Planted(
        table=RAW_DAYS, name="rows_per_user_ratio_in_range", change={"rows_per_user_ratio": 0.5}
    ),
    Planted(table=RAW_DAYS, name="nameless_rise_in_range", change={"nameless_rise": 0.3}),
    Planted(table=RAW_DAYS, name="quiet_seconds_in_range", change={"quiet_seconds": 30_000.0}),
    Planted(table=INTERACTION_DAYS, name="rows_exist", change=empty),
    # A day of an unknown number of rows cannot be summed either, which breaks no sum.
    *missing(INTERACTION_DAYS),
    Planted(table=INTERACTION_DAYS, name="key_unique", change=twice),
    Planted(
        table=INTERACTION_DAYS,
        name="event_date_in_range",
        change={"event_date": date(2025, 12, 31)},
    ),
    Planted(table=INTERACTION_DAYS, name="raw_kept_or_rejected", change={"kept_rows": 989}),
    Planted(
        table=INTERACTION_DAYS,
        name="rejected_fraction_in_range",
        change={"rejected_fraction": 0.26},
    ),
    *(
        Planted(table=INTERACTION_DAYS, name=f"{column}_in_range", change={column: 0.11})
        for column in ("rejected_rise", "repeated_rise", "unknown_rise")
    ),
    Planted(
        table=INTERACTION_DAYS,
        name="action_0_rate_steady",
        change={"rate_changes": [0.4, 0.0]},
    ),
    Planted(
        table=INTERACTION_DAYS,
        name="action_1_rate_steady",
        change={"rate_deviations": [5.0, -4.5]},
    ),
    Planted(table=REFERENCES, name="rows_exist", change=empty),
    *missing(REFERENCES),
    Planted(table=REFERENCES, name="key_unique", change=twice),
    Planted(table=REFERENCES, name="num_values_in_range", change={"num_values": -1}),
    Planted(table=REFERENCES, name="num_missing_in_range", change={"num_missing": 1}),
]
