"""Violations planted in the daily segments of the sequences."""

from datetime import date

from pipelines.tables import SEQUENCE_EVENTS
from tests.infra.planted import Planted, empty, missing, twice

_LAST_YEAR = date(2025, 12, 31)


def _outside(column: str, value: float) -> Planted:
    return Planted(table=SEQUENCE_EVENTS, name=f"{column}_in_range", change={column: value})


SEGMENT_CASES = [
    Planted(table=SEQUENCE_EVENTS, name="rows_exist", change=empty, implied=("shuffled_share",)),
    *missing(SEQUENCE_EVENTS),
    Planted(table=SEQUENCE_EVENTS, name="key_unique", change=twice),
    Planted(table=SEQUENCE_EVENTS, name="event_date_in_range", change={"event_date": _LAST_YEAR}),
    Planted(table=SEQUENCE_EVENTS, name="arrival_after_event", change={"arrival_date": _LAST_YEAR}),
    _outside("action_bits", 4),
    _outside("dwell_bucket", 9),
    _outside("position", -1),
    _outside("surface_index", 3),
    _outside("local_hour", 24),
    _outside("local_weekday", 7),
    _outside("age_bucket", 6),
    _outside("popularity_percentile", 101),
    _outside("rate_percentile", -1),
    _outside("propensity", 1.5),
    _outside("true_probability", 1.5),
    _outside("reachable_probability", -0.5),
    Planted(
        table=SEQUENCE_EVENTS,
        name="shuffled_share",
        change=lambda rows: [row | {"is_shuffled": True} for row in rows],
    ),
    Planted(
        table=SEQUENCE_EVENTS,
        name="week_counts_fit",
        change={"item_positives_7d": 7, "item_impressions_7d": 6},
    ),
]
