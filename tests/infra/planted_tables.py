"""Violations planted in the catalogue, the counters and the percentile cuts."""

from datetime import date

from pipelines.tables import (
    ITEM_COUNTERS,
    ITEMS,
    PERCENTILE_CUTS,
    USERS,
)
from tests.infra.healthy_rows import at
from tests.infra.planted import Planted, empty, missing, twice

TABLES = [
    Planted(table=ITEMS, name="rows_exist", change=empty),
    *missing(ITEMS),
    Planted(
        table=ITEMS, name="key_unique", change=lambda rows: [rows[0] | {"item_id": "i2"}, rows[1]]
    ),
    Planted(table=ITEMS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=ITEMS, name="item_index_unique", change={"item_index": 2}),
    Planted(table=ITEMS, name="item_index_dense", change={"item_index": 3}),
    Planted(table=ITEMS, name="duration_ms_in_range", change={"duration_ms": -1}),
    Planted(
        table=ITEMS,
        name="seen_after_published",
        change={"created_time": at(3), "first_seen_time": at(2, 0)},
    ),
    Planted(table=ITEMS, name="tags_not_blank", change={"tags": ["music", " "]}),
    Planted(table=ITEMS, name="author_id_not_blank", change={"author_id": " "}),
    Planted(table=ITEMS, name="text_not_blank", change={"text": ""}),
    Planted(table=ITEMS, name="features_named", change={"features": {"colour": " "}}),
    Planted(table=USERS, name="rows_exist", change=empty),
    *missing(USERS),
    Planted(table=USERS, name="key_unique", change={"user_id": "u2"}),
    Planted(table=USERS, name="user_index_in_range", change={"user_index": 0}),
    Planted(table=USERS, name="user_index_unique", change={"user_index": 2}),
    Planted(table=USERS, name="user_index_dense", change={"user_index": 3}),
    Planted(table=USERS, name="text_not_blank", change={"text": "\t"}),
    Planted(table=USERS, name="features_named", change={"features": {" ": "red"}}),
    Planted(table=ITEM_COUNTERS, name="rows_exist", change=empty),
    *missing(ITEM_COUNTERS),
    Planted(table=ITEM_COUNTERS, name="key_unique", change=twice),
    Planted(
        table=ITEM_COUNTERS,
        name="event_date_in_range",
        change={"event_date": date(2025, 12, 31), "first_shown_date": date(2025, 12, 31)},
    ),
    Planted(
        table=ITEM_COUNTERS,
        name="impressions_before_in_range",
        change={"impressions_before": -1},
        implied=("week_within_total", "action_counts_before_within_impressions"),
    ),
    Planted(
        table=ITEM_COUNTERS,
        name="impressions_7d_in_range",
        change={"impressions_7d": -1},
        implied=("action_counts_7d_within_impressions",),
    ),
    Planted(table=ITEM_COUNTERS, name="week_within_total", change={"impressions_7d": 6}),
    Planted(
        table=ITEM_COUNTERS,
        name="action_counts_before_aligned",
        change={"action_counts_before": [1, 0, 0]},
    ),
    Planted(table=ITEM_COUNTERS, name="action_counts_7d_aligned", change={"action_counts_7d": [1]}),
    Planted(
        table=ITEM_COUNTERS,
        name="action_counts_before_within_impressions",
        change={"action_counts_before": [6, 0]},
    ),
    Planted(
        table=ITEM_COUNTERS,
        name="action_counts_7d_within_impressions",
        change={"action_counts_7d": [1, None]},
    ),
    Planted(
        table=ITEM_COUNTERS,
        name="first_shown_by_the_day",
        change={"first_shown_date": date(2026, 1, 3)},
    ),
    Planted(table=ITEM_COUNTERS, name="totals_never_fall", change={"impressions_before": 9}),
    Planted(table=PERCENTILE_CUTS, name="rows_exist", change=empty),
    *missing(PERCENTILE_CUTS),
    Planted(table=PERCENTILE_CUTS, name="key_unique", change={"feature": "rate"}),
    Planted(
        table=PERCENTILE_CUTS,
        name="event_date_in_range",
        change={"event_date": date(2026, 1, 11)},
    ),
    Planted(table=PERCENTILE_CUTS, name="feature_known", change={"feature": "beauty"}),
    Planted(table=PERCENTILE_CUTS, name="age_bucket_in_range", change={"age_bucket": 6}),
    Planted(
        table=PERCENTILE_CUTS,
        name="num_rows_in_range",
        change={"num_rows": 0},
        implied=("counts_below_total",),
    ),
    Planted(table=PERCENTILE_CUTS, name="bins_aligned", change={"bins": [3, 7]}),
    Planted(table=PERCENTILE_CUTS, name="bins_rise", change={"bins": [3, 7, 7]}),
    Planted(
        table=PERCENTILE_CUTS, name="counts_rise_from_zero", change={"counts_below": [1, 4, 6]}
    ),
    Planted(table=PERCENTILE_CUTS, name="counts_below_total", change={"counts_below": [0, 4, 10]}),
]
