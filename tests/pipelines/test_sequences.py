"""Sequences: aligned arrays per user, split strictly by time, requests that cannot see themselves.

The manifest's validation split is 11 to 20 January 2024, its test split starts on the 21st.
"""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from pipelines.event_features import SequenceInputs
from pipelines.sequences import build_sequences
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEMS,
    PERCENTILE_CUTS,
    SEQUENCES,
    USERS,
)
from tests.pipelines.sequence_rows import CLICK, HIDE, LIKE, MANIFEST, at, frame, impression

_HISTORY = "user_id string, item_ids array<string>, action_bits array<int>, dwell_bucket array<int>"


def _inputs(
    spark: SparkSession, events: list[dict[str, Any]], **tables: list[dict[str, Any]]
) -> SequenceInputs:
    items = [{"item_id": name, "item_index": place + 1} for place, name in enumerate("abcdefgh")]
    users = [{"user_id": name, "user_index": place + 1} for place, name in enumerate("UVW")]
    history = tables.get("history")
    return SequenceInputs(
        interactions=frame(spark, INTERACTIONS, events),
        items=frame(spark, ITEMS, tables.get("items", items)),
        users=frame(spark, USERS, users),
        counters=frame(spark, ITEM_COUNTERS, tables.get("counters", [])),
        cuts=frame(spark, PERCENTILE_CUTS, tables.get("cuts", [])),
        history=None if history is None else spark.createDataFrame(history, _HISTORY),
    )


def _rows(inputs: SequenceInputs, *, max_events: int = 100) -> dict[tuple[str, str, int], Row]:
    sequences = build_sequences(inputs, manifest=MANIFEST, max_events=max_events)
    assert sequences.schema.simpleString() == SEQUENCES.schema.simpleString()
    rows = {(row.user_id, row.split, row.chunk): row for row in sequences.collect()}
    for row in rows.values():
        arrays = [value for value in row if isinstance(value, list)]
        assert {len(array) for array in arrays} == {row.num_events}
        assert sum(row.is_target) == row.num_targets
    return rows


def test_one_event_in_full(spark: SparkSession) -> None:
    """Every column of one row, worked out by hand."""
    event = impression(
        "e1",
        "V",
        "b",
        at(9, 23.5),
        action_bits=CLICK | HIDE,
        dwell_bucket=4,
        position=2,
        surface="search",
        true_probability=0.25,
        reachable_probability=0.5,
    )
    day = date(2024, 1, 9)
    counters = {
        "item_id": "b",
        "event_date": day,
        "impressions_before": 30,
        "action_counts_before": [12, 3, 0],
        "impressions_7d": 10,
        "action_counts_7d": [4, 1, 0],
    }
    items = [{"item_id": "b", "item_index": 7, "created_time": at(5)}]
    cut = {"event_date": day, "age_bucket": 3, "num_rows": 10, "version": "v"}
    cuts = [
        # Numbers below 32 are their own bin: 30 stands in bin 30, with 6 of 10 rows below.
        {**cut, "feature": "popularity", "bins": [0, 5, 30], "counts_below": [0, 2, 6]},
        # 12 of 30 is 400 per mille, above every bin.
        {**cut, "feature": "rate", "bins": [0], "counts_below": [0]},
    ]
    rows = _rows(_inputs(spark, [event], items=items, counters=[counters], cuts=cuts))
    assert rows.keys() == {("V", "train", 0)}
    assert rows["V", "train", 0].asDict() == {
        "user_id": "V",
        "user_index": 2,
        "split": "train",
        "chunk": 0,
        "num_events": 1,
        "num_targets": 1,
        "event_id": ["e1"],
        "item_index": [7],
        "event_time": [at(9, 23.5).replace(tzinfo=None)],
        "request_index": [1],
        "action_bits": [5],
        "dwell_bucket": [4],
        "position": [3],
        "surface_index": [2],
        "local_hour": [23],
        "local_weekday": [1],
        "age_bucket": [3],
        "popularity_percentile": [60],
        "rate_percentile": [100],
        "item_impressions_7d": [10],
        "item_positives_7d": [4],
        "is_target": [True],
        "true_probability": [0.25],
        "reachable_probability": [0.5],
    }


def test_unknown_values_are_zero(spark: SparkSession) -> None:
    events = [
        impression("e1", "nobody", "no item", at(2), surface="lift", position=200),
        impression("e2", "nobody", "a", at(3)),
    ]
    row = _rows(_inputs(spark, events))["nobody", "train", 0]
    assert row.user_index == 0
    assert row.item_index == [0, 1]
    assert row.surface_index == [0, 0]
    assert row.position == [63, 0]
    assert row.popularity_percentile == row.rate_percentile == [0, 0]
    assert row.age_bucket == row.item_impressions_7d == row.item_positives_7d == [0, 0]
    assert row.true_probability == [None, None]


def test_order_is_by_time_then_request_position_and_id(spark: SparkSession) -> None:
    events = [
        impression("z", "U", "a", at(3), request_id="r2", position=1),
        impression("y", "U", "b", at(3), request_id="r2", position=0),
        impression("x", "U", "c", at(2), request_id="r1"),
        impression("d", "U", "d", at(3), request_id="r2", position=1),
        impression("c", "U", "e", at(3), request_id="r1b", position=9),
    ]
    row = _rows(_inputs(spark, events))["U", "train", 0]
    assert row.event_id == ["x", "c", "y", "d", "z"]
    # r1b and r2 began at the same instant, so neither may see the other.
    assert row.request_index == [1, 2, 2, 2, 2]


def test_overlapping_requests_never_show_an_event_its_own_instant_or_later(
    spark: SparkSession,
) -> None:
    events = [
        impression("a1", "U", "a", at(3, 1), request_id="A"),
        impression("b1", "U", "b", at(3, 2), request_id="B"),
        impression("a2", "U", "c", at(3, 3), request_id="A"),
        impression("c1", "U", "d", at(3, 3), request_id="C"),
        impression("b2", "U", "e", at(3, 4), request_id="B"),
    ]
    row = _rows(_inputs(spark, events))["U", "train", 0]
    assert row.event_id == ["a1", "b1", "c1", "a2", "b2"]
    assert row.request_index == [1, 2, 3, 1, 2]
    visible = {
        name: [row.event_id[m] for m in range(n) if row.request_index[m] < row.request_index[n]]
        for n, name in enumerate(row.event_id)
    }
    assert visible == {"a1": [], "b1": ["a1"], "c1": ["a1", "b1"], "a2": [], "b2": ["a1", "a2"]}


def test_splits_are_strict_in_time_and_a_straddling_request_is_no_later_target(
    spark: SparkSession,
) -> None:
    edge = MANIFEST.validation_start
    moment = timedelta(microseconds=1)
    events = [
        impression("before", "U", "a", edge - moment, request_id="r"),
        impression("after", "U", "b", edge, request_id="r"),
        impression("own", "U", "c", edge + moment),
        impression("late", "U", "d", MANIFEST.test_start, is_mature=False),
    ]
    rows = _rows(_inputs(spark, events))
    seen = {
        key[1]: list(zip(row.event_id, row.is_target, strict=True)) for key, row in rows.items()
    }
    assert seen == {
        "train": [("before", True)],
        "validation": [("before", False), ("after", False), ("own", True)],
        "test": [("before", False), ("after", False), ("own", False), ("late", False)],
    }
    assert rows["U", "validation", 0].request_index == [1, 1, 2]


def test_train_keeps_the_newest_events_and_fills_up_with_history(spark: SparkSession) -> None:
    events = [impression(f"e{day}", "U", "abcdefgh"[day], at(day)) for day in range(1, 5)]
    history = [
        {
            "user_id": "U",
            "item_ids": ["f", "g", "h"],
            "action_bits": [CLICK, 0, LIKE],
            "dwell_bucket": [1, 0, 3],
        },
        {"user_id": "W", "item_ids": ["a"], "action_bits": [1], "dwell_bucket": [0]},
    ]
    inputs = _inputs(spark, events, history=history)
    row = _rows(inputs, max_events=6)["U", "train", 0]
    assert row.event_id == [None, None, "e1", "e2", "e3", "e4"]
    assert row.item_index == [7, 8, 2, 3, 4, 5]
    assert row.event_time[:2] == [None, None]
    assert row.action_bits == [0, LIKE, 0, 0, 0, 0]
    assert row.dwell_bucket == [0, 3, 0, 0, 0, 0]
    assert row.request_index == [1, 2, 3, 4, 5, 6]
    assert row.local_hour == [-1, -1, 12, 12, 12, 12]
    assert row.local_weekday == [-1, -1, 0, 1, 2, 3]
    assert row.position == [0] * 6
    assert row.is_target == [False, False, True, True, True, True]
    short = _rows(inputs, max_events=3)
    assert short.keys() == {("U", "train", 0)}  # W has history alone
    assert short["U", "train", 0].event_id == ["e2", "e3", "e4"]
    assert short["U", "train", 0].num_targets == 3


def test_chunks_hold_each_test_event_once_behind_its_own_context(spark: SparkSession) -> None:
    train = [impression(f"t{day}", "U", "a", at(day)) for day in (1, 2, 3)]
    valid = [impression("v", "U", "b", at(12))]
    test = [impression(f"s{hour}", "U", "c", at(22, hour)) for hour in range(5)]
    history = [{"user_id": "U", "item_ids": ["d"], "action_bits": [0], "dwell_bucket": [0]}]
    inputs = _inputs(spark, train + valid + test, history=history)
    rows = _rows(inputs, max_events=2)
    events = {key[1:]: (row.event_id, row.num_targets) for key, row in rows.items()}
    assert events == {
        ("train", 0): (["t2", "t3"], 2),
        ("validation", 0): (["t2", "t3", "v"], 1),
        ("test", 0): (["t3", "v", "s0", "s1"], 2),
        ("test", 1): (["s0", "s1", "s2", "s3"], 2),
        ("test", 2): (["s2", "s3", "s4"], 1),
    }
    assert rows["U", "test", 2].is_target == [False, False, True]
    assert rows["U", "test", 2].request_index == [1, 2, 3]
    # A later event changes no earlier chunk.
    grown = _inputs(spark, [*train, *valid, *test, impression("s9", "U", "c", at(30))])
    again = _rows(replace(grown, history=inputs.history), max_events=2)
    assert {key: again[key] for key in rows if key[2] != 2} == {
        key: row for key, row in rows.items() if key[2] != 2
    }
    assert again["U", "test", 2].event_id == ["s2", "s3", "s4", "s9"]


def test_users_appear_only_in_splits_where_they_have_events(spark: SparkSession) -> None:
    events = [
        impression("e1", "U", "a", at(2)),
        impression("e2", "U", "a", at(25)),
        impression("e3", "V", "a", at(15)),
    ]
    rows = _rows(_inputs(spark, events, history=[]))
    assert rows.keys() == {("U", "train", 0), ("U", "test", 0), ("V", "validation", 0)}
    assert rows["U", "test", 0].event_id == ["e1", "e2"]
    assert rows["V", "validation", 0].event_id == ["e3"]


def test_no_events_give_no_rows(spark: SparkSession) -> None:
    assert _rows(_inputs(spark, [])) == {}


def test_max_events_must_be_positive(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="max_events must be at least 1, not 0"):
        build_sequences(_inputs(spark, []), manifest=MANIFEST, max_events=0)
