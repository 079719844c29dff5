"""Violations planted in the sums per item and day."""

from datetime import UTC, datetime

from pipelines.tables import INTERACTIONS, ITEM_DAYS
from tests.infra.healthy_rows import at
from tests.infra.planted import Planted, empty, missing, twice

_LAST_YEAR = datetime(2025, 12, 31, 1, tzinfo=UTC)

ITEM_DAY_CASES = [
    Planted(
        table=INTERACTIONS, name="arrival_after_event", change={"arrival_date": _LAST_YEAR.date()}
    ),
    Planted(table=ITEM_DAYS, name="rows_exist", change=empty),
    *missing(ITEM_DAYS),
    Planted(table=ITEM_DAYS, name="key_unique", change=twice),
    Planted(
        table=ITEM_DAYS,
        name="event_date_in_range",
        change={"event_date": _LAST_YEAR.date(), "first_event_time": _LAST_YEAR},
    ),
    Planted(
        table=ITEM_DAYS, name="arrival_after_event", change={"arrival_date": _LAST_YEAR.date()}
    ),
    Planted(
        table=ITEM_DAYS,
        name="impressions_in_range",
        change={"impressions": 0},
        implied=("action_counts_within_impressions",),
    ),
    Planted(table=ITEM_DAYS, name="action_counts_aligned", change={"action_counts": [1]}),
    Planted(
        table=ITEM_DAYS, name="action_counts_within_impressions", change={"action_counts": [6, 0]}
    ),
    Planted(table=ITEM_DAYS, name="first_event_on_its_day", change={"first_event_time": at(1, 20)}),
]
