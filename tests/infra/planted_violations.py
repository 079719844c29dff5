"""Healthy rows of every table, and for each expectation a change that breaks it.

A change replaces values of the first row, or takes the rows and returns others. `implied` lists
the expectations that the change breaks as well because the planted one cannot be broken alone.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pipelines.sources.manifest import SourceManifest
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_EMBEDDINGS,
    ITEM_PROMPTS,
    ITEM_TEXT,
    ITEMS,
    MEMBER_PROMPTS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEMANTIC_IDS,
    SEQUENCES,
    USERS,
    Table,
)

Row = dict[str, Any]
Change = dict[str, Any] | Callable[[list[Row]], list[Row]]
MANIFEST = SourceManifest(
    source="simulated",
    actions=("click", "like"),
    primary_action="click",
    positive_actions=("click",),
    surfaces=("feed", "search"),
    start_date=date(2026, 1, 1),
    end_date=date(2026, 1, 10),
    validation_start=datetime(2026, 1, 7, tzinfo=UTC),
    test_start=datetime(2026, 1, 9, tzinfo=UTC),
    timezone="Asia/Shanghai",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """Say how one expectation of a table is broken, and what else must break with it."""

    table: Table
    name: str
    change: Change
    implied: tuple[str, ...] = ()


def _at(day: int, hour: int = 1) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def _raw(number: int, **values: Any) -> Row:
    row = {
        "event_id": f"e{number}",
        "kind": "impression",
        "user_id": "u1",
        "item_id": f"i{number}",
        "event_time": _at(1),
        "event_date": date(2026, 1, 1),
        "propensity": 0.5,
        "true_probability": 0.25,
        "reachable_probability": 0.25,
    }
    return row | values


def _interaction(number: int, **values: Any) -> Row:
    row = {
        "event_id": f"e{number}",
        "request_id": f"r{number}",
        "user_id": "u1",
        "item_id": f"i{number}",
        "event_time": _at(1, 1),  # 09:00 in Shanghai, a Thursday
        "event_date": date(2026, 1, 1),
        "local_hour": 9,
        "local_weekday": 3,
        "action_bits": number % 2,
        "dwell_ms": 1000,
        "dwell_bucket": 2,
        "duration_ms": 9000,
        "position": 0,
        "surface": "feed",
        "propensity": 0.5,
        "is_shuffled": False,
        "is_mature": True,
        "num_source_rows": 1,
        "true_probability": 0.25,
        "reachable_probability": 0.25,
    }
    return row | values


def _item(number: int) -> Row:
    return {
        "item_id": f"i{number}",
        "item_index": number,
        "created_time": _at(1),
        "first_seen_time": _at(2),
        "tags": ["music"],
        "text": "a song",
        "duration_ms": 9000,
    }


def _counter(day: int, before: int, week: int) -> Row:
    return {
        "item_id": "i1",
        "event_date": date(2026, 1, day),
        "impressions_before": before,
        "action_counts_before": [1, 0],
        "impressions_7d": week,
        "action_counts_7d": [1, 0],
    }


def _cut(feature: str) -> Row:
    return {
        "event_date": date(2026, 1, 2),
        "feature": feature,
        "age_bucket": 1,
        "bins": [3, 7, 9],
        "counts_below": [0, 4, 6],
        "num_rows": 10,
        "version": "v1",
    }


def _sequence(split: str, days: tuple[int, ...]) -> Row:
    """Return one undated event, a dated one before the split, and two targets."""
    return {
        "user_id": "u1",
        "user_index": 1,
        "split": split,
        "chunk": 0,
        "num_events": 4,
        "num_targets": 2,
        "event_id": [None, "e1", "e2", "e3"],
        "item_index": [1, 2, 3, 0],
        "event_time": [None, *(_at(day) for day in days)],
        "request_index": [1, 2, 3, 4],
        "action_bits": [1, 0, 3, 0],
        "dwell_bucket": [0, 1, 2, 8],
        "position": [0, 1, 2, 63],
        "surface_index": [0, 1, 2, 1],
        "local_hour": [-1, 9, 9, 9],
        "local_weekday": [-1, 3, 4, 5],
        "age_bucket": [0, 1, 2, 5],
        "popularity_percentile": [0, 1, 50, 100],
        "rate_percentile": [0, 1, 50, 100],
        "item_impressions_7d": [0, 5, 9, 2],
        "item_positives_7d": [0, 5, 1, 0],
        "is_target": [False, False, True, True],
        "true_probability": [None, 0.5, 0.5, 1.0],
        "reachable_probability": [None, 0.5, 0.5, 0.0],
    }


def _token(number: int, **values: Any) -> Row:
    return {"item_id": f"i{number}", "item_index": number} | values


def _member(number: int) -> Row:
    return {
        "event_id": f"e{number}",
        "user_id": "u1",
        "split": "train",
        "event_date": date(2026, 1, 2),
        "item_index": 1,
        "item_id": "i1",
        "is_positive": True,
        "for_retrieval": True,
        "for_ranking": False,
        "negative_item_indices": [2],
        "history_item_indices": [3],
        "prompt": "a member who likes songs",
    }


HEALTHY: dict[str, list[Row]] = {
    "raw_events": [_raw(1), _raw(2, kind="action")],
    "rejected_events": [
        {
            "event_id": "e1",
            "event_date": date(2026, 1, 1),
            "reason": "missing_user",
            "payload": json.dumps({"item_id": "i1"}),
        }
    ],
    "interactions": [_interaction(number) for number in (1, 2, 3)],
    "items": [_item(1), _item(2)],
    "users": [{"user_id": f"u{n}", "user_index": n} for n in (1, 2)],
    "item_counters": [_counter(2, 5, 5), _counter(9, 8, 3)],
    "percentile_cuts": [_cut("impressions"), _cut("rate")],
    "sequences": [
        _sequence("train", (1, 2, 3)),
        _sequence("validation", (3, 7, 8)),
        _sequence("test", (7, 9, 10)),
    ],
    "item_text": [_token(n, text="a song", origin="text", is_fitted=True) for n in (1, 2)],
    "item_embeddings": [
        _token(n, encoder="small", embedding=[0.6, 0.8] if n == 1 else [1.0, 0.0]) for n in (1, 2)
    ],
    "semantic_ids": [
        _token(n, codes=[4, 0, 2], disambiguator=n - 1, codebook_version="v1") for n in (1, 2)
    ],
    "member_prompts": [_member(1), _member(2)],
    "item_prompts": [
        _token(n, event_date=date(2026, 1, 9), is_catalogue=True, prompt="a song") for n in (1, 2)
    ],
}


def planted_rows(planted: Planted) -> list[Row]:
    """Return the healthy rows of a table with the planted violation in them."""
    rows = [dict(row) for row in HEALTHY[planted.table.name]]
    if callable(planted.change):
        return planted.change(rows)
    return [rows[0] | planted.change, *rows[1:]]


def _empty(rows: list[Row]) -> list[Row]:
    return []


def _twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[0]]


def _swapped(column: str, first: int, second: int, *, table: str, row: int = 0) -> list[Any]:
    values = list(HEALTHY[table][row][column])
    values[first], values[second] = values[second], values[first]
    return values


def _with_last(column: str, value: Any) -> dict[str, Any]:
    return {column: [*HEALTHY["sequences"][0][column][:-1], value]}


def _missing(table: Table, **implied: tuple[str, ...]) -> list[Planted]:
    """Plant a null in each required column of a table."""
    return [
        Planted(
            table=table,
            name=f"{column}_present",
            change={column: None},
            implied=implied.get(column, ()),
        )
        for column in table.required
    ]


_EVENTS = [
    Planted(table=RAW_EVENTS, name="rows_exist", change=_empty),
    *_missing(RAW_EVENTS),
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
    Planted(table=RAW_EVENTS, name="user_id_share", change={"user_id": None}),
    Planted(table=RAW_EVENTS, name="event_time_share", change={"event_time": None}),
    *_missing(REJECTED_EVENTS),
    Planted(
        table=REJECTED_EVENTS,
        name="event_date_in_range",
        change={"event_date": date(2026, 1, 11)},
    ),
    Planted(table=REJECTED_EVENTS, name="reason_known", change={"reason": "did not like it"}),
    Planted(table=REJECTED_EVENTS, name="payload_is_json", change={"payload": "{broken"}),
    Planted(table=INTERACTIONS, name="rows_exist", change=_empty),
    *_missing(INTERACTIONS),
    Planted(table=INTERACTIONS, name="key_unique", change=_twice),
    Planted(
        table=INTERACTIONS, name="event_date_in_range", change={"event_date": date(2026, 1, 11)}
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
    Planted(table=INTERACTIONS, name="num_source_rows_in_range", change={"num_source_rows": 0}),
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
        name="mature_share",
        change=lambda rows: [row | {"is_mature": False} for row in rows],
    ),
    Planted(
        table=INTERACTIONS,
        name="primary_share",
        change=lambda rows: [row | {"action_bits": 0} for row in rows],
    ),
]
_TABLES = [
    Planted(table=ITEMS, name="rows_exist", change=_empty),
    *_missing(ITEMS),
    Planted(
        table=ITEMS, name="key_unique", change=lambda rows: [rows[0] | {"item_id": "i2"}, rows[1]]
    ),
    Planted(table=ITEMS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=ITEMS, name="item_index_unique", change={"item_index": 2}),
    Planted(table=ITEMS, name="item_index_dense", change={"item_index": 3}),
    Planted(table=ITEMS, name="duration_ms_in_range", change={"duration_ms": -1}),
    Planted(table=ITEMS, name="seen_after_published", change={"first_seen_time": _at(1, 0)}),
    Planted(table=ITEMS, name="tags_not_blank", change={"tags": ["music", " "]}),
    Planted(table=USERS, name="rows_exist", change=_empty),
    *_missing(USERS),
    Planted(table=USERS, name="key_unique", change={"user_id": "u2"}),
    Planted(table=USERS, name="user_index_in_range", change={"user_index": 0}),
    Planted(table=USERS, name="user_index_unique", change={"user_index": 2}),
    Planted(table=USERS, name="user_index_dense", change={"user_index": 3}),
    Planted(table=ITEM_COUNTERS, name="rows_exist", change=_empty),
    *_missing(ITEM_COUNTERS),
    Planted(table=ITEM_COUNTERS, name="key_unique", change=_twice),
    Planted(
        table=ITEM_COUNTERS, name="event_date_in_range", change={"event_date": date(2025, 12, 31)}
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
    Planted(table=ITEM_COUNTERS, name="totals_never_fall", change={"impressions_before": 9}),
    Planted(table=PERCENTILE_CUTS, name="rows_exist", change=_empty),
    *_missing(PERCENTILE_CUTS),
    Planted(table=PERCENTILE_CUTS, name="key_unique", change={"feature": "rate"}),
    Planted(
        table=PERCENTILE_CUTS,
        name="event_date_in_range",
        change={"event_date": date(2026, 1, 11)},
    ),
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
_NO_EVENTS = {
    **{name: [] for name, value in HEALTHY["sequences"][0].items() if isinstance(value, list)},
    "num_events": 0,
    "num_targets": 0,
}
_SEQUENCES = [
    Planted(table=SEQUENCES, name="rows_exist", change=_empty),
    *_missing(SEQUENCES),
    Planted(table=SEQUENCES, name="key_unique", change=_twice),
    Planted(table=SEQUENCES, name="split_known", change={"split": "holdout"}),
    Planted(table=SEQUENCES, name="user_index_in_range", change={"user_index": -1}),
    Planted(table=SEQUENCES, name="chunk_in_range", change={"chunk": -1}),
    Planted(table=SEQUENCES, name="num_events_in_range", change=_NO_EVENTS),
    Planted(table=SEQUENCES, name="arrays_aligned", change={"position": [0, 1, 2]}),
    Planted(table=SEQUENCES, name="targets_counted", change={"num_targets": 3}),
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
        name="targets_in_split",
        change={"event_time": [None, _at(1), _at(2), _at(7, 0)]},
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
    Planted(table=SEQUENCES, name="week_counts_fit", change=_with_last("item_positives_7d", 3)),
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


def _per_item(table: Table) -> list[Planted]:
    """Plant what every table with one row per item is held to."""
    return [
        Planted(table=table, name="rows_exist", change=_empty),
        *_missing(table),
        Planted(table=table, name="key_unique", change={"item_id": "i2"}),
        Planted(table=table, name="item_index_in_range", change={"item_index": 0}),
        Planted(table=table, name="item_index_unique", change={"item_index": 2}),
    ]


_TOKENS = [
    *_per_item(ITEM_TEXT),
    Planted(table=ITEM_TEXT, name="origin_known", change={"origin": "title"}),
    Planted(table=ITEM_TEXT, name="text_not_blank", change={"text": "  "}),
    *_per_item(ITEM_EMBEDDINGS),
    Planted(table=ITEM_EMBEDDINGS, name="embedding_unit_norm", change={"embedding": [0.6, 0.9]}),
    Planted(table=ITEM_EMBEDDINGS, name="embedding_width", change={"embedding": [0.6, 0.8, 0.0]}),
    Planted(table=ITEM_EMBEDDINGS, name="one_encoder", change={"encoder": "large"}),
    *_per_item(SEMANTIC_IDS),
    Planted(
        table=SEMANTIC_IDS,
        name="codes_levels",
        change=lambda rows: [row | {"codes": [4, 0]} for row in rows],
    ),
    Planted(table=SEMANTIC_IDS, name="same_levels", change={"codes": [4, 0, 2, 1]}),
    Planted(table=SEMANTIC_IDS, name="codes_items_in_range", change={"codes": [4, -1, 2]}),
    Planted(table=SEMANTIC_IDS, name="disambiguator_in_range", change={"disambiguator": -1}),
    Planted(table=SEMANTIC_IDS, name="id_unique", change={"disambiguator": 1}),
    Planted(table=SEMANTIC_IDS, name="one_codebook", change={"codebook_version": "v2"}),
    Planted(table=MEMBER_PROMPTS, name="rows_exist", change=_empty),
    *_missing(MEMBER_PROMPTS),
    Planted(table=MEMBER_PROMPTS, name="key_unique", change=_twice),
    Planted(table=MEMBER_PROMPTS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=MEMBER_PROMPTS, name="split_known", change={"split": "holdout"}),
    Planted(
        table=MEMBER_PROMPTS, name="event_date_in_range", change={"event_date": date(2027, 1, 1)}
    ),
    Planted(table=MEMBER_PROMPTS, name="prompt_not_blank", change={"prompt": ""}),
    Planted(table=MEMBER_PROMPTS, name="chosen_for_something", change={"for_retrieval": False}),
    Planted(table=MEMBER_PROMPTS, name="retrieval_rows_positive", change={"is_positive": False}),
    Planted(
        table=MEMBER_PROMPTS,
        name="negatives_exclude_target",
        change={"negative_item_indices": [2, 1]},
    ),
    Planted(
        table=MEMBER_PROMPTS,
        name="negative_item_indices_items_in_range",
        change={"negative_item_indices": [None, 2]},
    ),
    Planted(
        table=MEMBER_PROMPTS,
        name="history_item_indices_items_in_range",
        change={"history_item_indices": [-3]},
    ),
    Planted(table=ITEM_PROMPTS, name="rows_exist", change=_empty),
    *_missing(ITEM_PROMPTS),
    Planted(table=ITEM_PROMPTS, name="key_unique", change=_twice),
    Planted(table=ITEM_PROMPTS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=ITEM_PROMPTS, name="prompt_not_blank", change={"prompt": "\t "}),
]
PLANTED = (*_EVENTS, *_TABLES, *_SEQUENCES, *_TOKENS)
