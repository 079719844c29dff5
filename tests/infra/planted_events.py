"""Violations planted in the event tables."""

from datetime import date

from pipelines.tables import INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS
from tests.infra.healthy_rows import at
from tests.infra.planted import Planted, empty, missing, twice

EVENTS = [
    Planted(
        table=RAW_EVENTS,
        name="rows_exist",
        change=empty,
        implied=("shuffled_share",),
    ),
    *missing(RAW_EVENTS),
    Planted(
        table=RAW_EVENTS, name="event_date_in_range", change={"event_date": date(2025, 12, 31)}
    ),
    Planted(table=RAW_EVENTS, name="kind_known", change={"kind": "view"}),
    Planted(table=RAW_EVENTS, name="propensity_in_range", change={"propensity": 1.5}),
    Planted(table=RAW_EVENTS, name="true_probability_in_range", change={"true_probability": -0.1}),
    Planted(
        table=RAW_EVENTS,
        name="reachable_probability_in_range",
        change={"reachable_probability": 1.1},
    ),
    *(
        Planted(table=RAW_EVENTS, name=f"{name}_in_range", change={name: -1})
        for name in ("dwell_ms", "duration_ms", "position")
    ),
    Planted(table=RAW_EVENTS, name="surface_known", change={"surface": "mail"}),
    Planted(table=RAW_EVENTS, name="impression_id_not_blank", change={"impression_id": " "}),
    Planted(table=RAW_EVENTS, name="request_id_not_blank", change={"request_id": ""}),
    Planted(table=RAW_EVENTS, name="actions_known", change={"actions": ["click", "buy"]}),
    Planted(table=RAW_EVENTS, name="arrival_follows_event", change={"arrival_time": at(1, 0)}),
    Planted(table=RAW_EVENTS, name="parsed", change={"raw_text": "broken,row"}),
    *(
        Planted(table=RAW_EVENTS, name=f"{name}_usually_present", change={name: None})
        for name in ("event_id", "user_id", "item_id", "event_time")
    ),
    Planted(
        table=RAW_EVENTS,
        name="shuffled_share",
        change=lambda rows: [row | {"is_shuffled": True} for row in rows],
    ),
    *missing(REJECTED_EVENTS),
    Planted(
        table=REJECTED_EVENTS,
        name="event_date_in_range",
        change={"event_date": date(2026, 1, 11)},
    ),
    Planted(table=REJECTED_EVENTS, name="reason_known", change={"reason": "did not like it"}),
    Planted(table=REJECTED_EVENTS, name="event_id_kept", change={"event_id": None}),
    Planted(table=REJECTED_EVENTS, name="payload_is_json", change={"payload": "{broken"}),
    Planted(
        table=INTERACTIONS,
        name="rows_exist",
        change=empty,
        implied=("shuffled_share", "primary_share"),
    ),
    *missing(INTERACTIONS),
    Planted(table=INTERACTIONS, name="key_unique", change=twice),
    Planted(
        table=INTERACTIONS,
        name="event_date_in_range",
        change={"event_date": date(2026, 1, 11), "arrival_date": date(2026, 1, 11)},
    ),
    Planted(
        table=INTERACTIONS,
        name="local_hour_in_range",
        change={"local_hour": 24},
        implied=("local_hour_matches_time",),
    ),
    Planted(
        table=INTERACTIONS,
        name="local_weekday_in_range",
        change={"local_weekday": 7},
        implied=("local_weekday_matches_time",),
    ),
    Planted(table=INTERACTIONS, name="action_bits_in_range", change={"action_bits": 5}),
    Planted(table=INTERACTIONS, name="dwell_ms_in_range", change={"dwell_ms": -1}),
    Planted(table=INTERACTIONS, name="dwell_bucket_in_range", change={"dwell_bucket": 9}),
    Planted(table=INTERACTIONS, name="duration_ms_in_range", change={"duration_ms": -1}),
    Planted(table=INTERACTIONS, name="position_in_range", change={"position": -1}),
    Planted(table=INTERACTIONS, name="surface_known", change={"surface": "mail"}),
    Planted(
        table=INTERACTIONS,
        name="num_source_rows_in_range",
        change={"num_source_rows": 0, "later_days": None},
    ),
    Planted(table=INTERACTIONS, name="later_days_counted", change={"later_days": [1, 1]}),
    Planted(table=INTERACTIONS, name="propensity_in_range", change={"propensity": 1.5}),
    Planted(table=INTERACTIONS, name="true_probability_in_range", change={"true_probability": 1.5}),
    Planted(
        table=INTERACTIONS,
        name="reachable_probability_in_range",
        change={"reachable_probability": -0.5},
    ),
    Planted(table=INTERACTIONS, name="local_hour_matches_time", change={"local_hour": 1}),
    Planted(table=INTERACTIONS, name="local_weekday_matches_time", change={"local_weekday": 2}),
    Planted(
        table=INTERACTIONS,
        name="shuffled_share",
        change=lambda rows: [row | {"is_shuffled": True} for row in rows],
    ),
    Planted(
        table=INTERACTIONS,
        name="primary_share",
        change=lambda rows: [row | {"action_bits": 0} for row in rows],
    ),
]
