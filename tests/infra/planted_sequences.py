"""Violations planted in sequences."""

from typing import Any

from pipelines.tables import SEQUENCES
from tests.infra.healthy_rows import HEALTHY, at
from tests.infra.planted import Planted, empty, missing, twice


def _swapped(column: str, first: int, second: int, *, table: str, row: int = 0) -> list[Any]:
    values = list(HEALTHY[table][row][column])
    values[first], values[second] = values[second], values[first]
    return values


def _with_last(column: str, value: Any) -> dict[str, Any]:
    return {column: [*HEALTHY["sequences"][0][column][:-1], value]}


_NO_EVENTS = {
    **{name: [] for name, value in HEALTHY["sequences"][0].items() if isinstance(value, list)},
    "num_events": 0,
    "num_targets": 0,
}
SEQUENCE_CASES = [
    Planted(table=SEQUENCES, name="rows_exist", change=empty),
    *missing(SEQUENCES),
    Planted(table=SEQUENCES, name="key_unique", change=twice),
    Planted(table=SEQUENCES, name="split_known", change={"split": "holdout"}),
    Planted(table=SEQUENCES, name="user_index_in_range", change={"user_index": -1}),
    Planted(table=SEQUENCES, name="chunk_in_range", change={"chunk": -1}),
    Planted(table=SEQUENCES, name="num_events_in_range", change=_NO_EVENTS),
    Planted(table=SEQUENCES, name="arrays_aligned", change={"position": [0, 1, 2]}),
    Planted(table=SEQUENCES, name="targets_counted", change={"num_targets": 3}),
    Planted(
        table=SEQUENCES,
        name="events_distinct",
        change={"event_id": [None, "e1", "e2", "e2"], "event_time": [None, at(1), at(2), at(2)]},
    ),
    Planted(table=SEQUENCES, name="requests_ranked", change={"request_index": [1, 2, 3, 5]}),
    Planted(table=SEQUENCES, name="sessions_counted", change={"session_index": [1, 0, 2, 3]}),
    Planted(
        table=SEQUENCES,
        name="times_ordered",
        change={"event_time": _swapped("event_time", 1, 2, table="sequences")},
    ),
    Planted(
        table=SEQUENCES,
        name="undated_first",
        change={"event_time": _swapped("event_time", 0, 1, table="sequences")},
    ),
    Planted(
        table=SEQUENCES,
        name="targets_dated",
        change={"is_target": [True, False, False, True]},
    ),
    Planted(
        table=SEQUENCES,
        name="undated_unlogged",
        change={
            "propensity": [0.5, None, 0.5, 1.0],
            "is_shuffled": [True, None, True, False],
        },
    ),
    Planted(
        table=SEQUENCES,
        name="targets_in_split",
        change={"event_time": [None, at(1), at(2), at(7, 0)]},
    ),
    Planted(table=SEQUENCES, name="item_index_items_in_range", change=_with_last("item_index", -1)),
    Planted(
        table=SEQUENCES, name="action_bits_items_in_range", change=_with_last("action_bits", 4)
    ),
    Planted(
        table=SEQUENCES, name="dwell_bucket_items_in_range", change=_with_last("dwell_bucket", 9)
    ),
    Planted(table=SEQUENCES, name="position_items_in_range", change=_with_last("position", 64)),
    Planted(
        table=SEQUENCES, name="surface_index_items_in_range", change=_with_last("surface_index", 3)
    ),
    Planted(table=SEQUENCES, name="local_hour_items_in_range", change=_with_last("local_hour", 24)),
    Planted(
        table=SEQUENCES,
        name="local_weekday_items_in_range",
        change=_with_last("local_weekday", None),
    ),
    Planted(table=SEQUENCES, name="age_bucket_items_in_range", change=_with_last("age_bucket", 6)),
    Planted(
        table=SEQUENCES,
        name="popularity_percentile_items_in_range",
        change=_with_last("popularity_percentile", 101),
    ),
    Planted(
        table=SEQUENCES,
        name="rate_percentile_items_in_range",
        change=_with_last("rate_percentile", -1),
    ),
    Planted(
        table=SEQUENCES,
        name="week_counts_fit",
        change=_with_last("item_positives_7d", 2) | _with_last("item_impressions_7d", 1),
    ),
    Planted(
        table=SEQUENCES,
        name="propensity_items_in_range",
        change=_with_last("propensity", 1.5),
    ),
    Planted(
        table=SEQUENCES,
        name="true_probability_items_in_range",
        change=_with_last("true_probability", 1.5),
    ),
    Planted(
        table=SEQUENCES,
        name="reachable_probability_items_in_range",
        change=_with_last("reachable_probability", -0.5),
    ),
]
