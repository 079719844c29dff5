"""Sequences: aligned arrays per user, split strictly by time, requests that cannot see themselves.

The manifest's validation split is 11 to 20 January 2024, its test split starts on the 21st.
"""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from pipelines.event_features import FeatureInputs
from pipelines.sequence_events import build_sequence_events
from pipelines.sequences import SequenceInputs, build_sequences
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEMS,
    PERCENTILE_CUTS,
    SEQUENCES,
    USERS,
)
from pipelines.version_tables import ITEM_VERSIONS
from tests.pipelines.sequence_rows import CLICK, HIDE, LIKE, MANIFEST, at, frame, impression
from tests.pipelines.version_rows import since_ever

_HISTORY = "user_id string, item_ids array<string>, action_bits array<int>, dwell_bucket array<int>"
_ITEMS = [{"item_id": name, "item_index": place} for place, name in enumerate("abcdefgh", 1)]
_USERS = ("whole", "tied", "overlapping", "straddling", "rare", "new", "short", "long", "longer")
_TRUNCATED_TO = 3
_DAY = date(2024, 1, 9)
_EDGE, _INSTANT = MANIFEST.validation_start, timedelta(microseconds=1)

Rows = dict[tuple[str, str, int], Row]


def _inputs(
    spark: SparkSession, events: list[dict[str, Any]], manifest: SourceManifest = MANIFEST
) -> SequenceInputs:
    users = [{"user_id": name, "user_index": place} for place, name in enumerate(_USERS, 1)]
    day = {"item_id": "b", "event_date": _DAY}
    counters = [
        {
            **day,
            "impressions_before": 30,
            "action_counts_before": [12, 3, 0],
            "impressions_7d": 10,
            "action_counts_7d": [4, 1, 0],
        }
    ]
    cut = {"event_date": _DAY, "age_bucket": 3, "num_rows": 10, "version": "v"}
    cuts = [
        # Numbers below 32 are their own bin: 10 stands in bin 10, with 6 of 10 rows below.
        {**cut, "feature": "popularity", "bins": [0, 5, 10], "counts_below": [0, 2, 6]},
        # 12 of 30 is 400 per mille, above every bin.
        {**cut, "feature": "rate", "bins": [0], "counts_below": [0]},
    ]
    history = [
        ("short", ["f", "g", "h"], [CLICK, 0, LIKE], [1, 0, 3]),
        ("long", ["f"], [0], [0]),
        ("longer", ["f"], [0], [0]),
        ("history alone", ["a"], [1], [0]),
    ]
    items = [{**item, "created_time": at(5)} if item["item_id"] == "b" else item for item in _ITEMS]
    catalogue = frame(spark, ITEMS, items)
    known = FeatureInputs(
        versions=since_ever(catalogue, ITEM_VERSIONS),
        item_days=frame(spark, ITEM_DAYS, []),
        counters=frame(spark, ITEM_COUNTERS, counters),
        cuts=frame(spark, PERCENTILE_CUTS, cuts),
    )
    interactions = frame(spark, INTERACTIONS, events)
    return SequenceInputs(
        events=build_sequence_events(interactions, inputs=known, manifest=manifest),
        items=catalogue,
        users=frame(spark, USERS, users),
        history=spark.createDataFrame(history, _HISTORY),
    )


def _events() -> list[dict[str, Any]]:
    """Return the events of one user per case."""
    long = [
        *(impression(f"t{day}", "long", "a", at(day)) for day in (1, 2, 3, 4)),
        impression("v", "long", "b", at(12)),
        *(impression(f"s{hour}", "long", "c", at(22, hour)) for hour in range(5)),
    ]
    longer = [{**event, "user_id": "longer"} for event in long]
    return [
        impression(
            "w1",
            "whole",
            "b",
            at(9, 23.5),
            action_bits=CLICK | HIDE,
            dwell_bucket=4,
            position=2,
            surface="search",
            propensity=0.125,
            is_shuffled=True,
            true_probability=0.25,
            reachable_probability=0.5,
        ),
        impression("n1", "nobody", "no item", at(2), surface="lift", position=200),
        impression("n2", "nobody", "a", at(3)),
        impression("z", "tied", "a", at(3), request_id="r2", position=1),
        impression("y", "tied", "b", at(3), request_id="r2", position=0),
        impression("x", "tied", "c", at(2), request_id="r1"),
        impression("d", "tied", "d", at(3), request_id="r2", position=1),
        impression("c", "tied", "e", at(3), request_id="r1b", position=9),
        impression("a1", "overlapping", "a", at(3, 1), request_id="A"),
        impression("b1", "overlapping", "b", at(3, 2), request_id="B"),
        impression("a2", "overlapping", "c", at(3, 3), request_id="A"),
        impression("c1", "overlapping", "d", at(3, 3), request_id="C"),
        impression("b2", "overlapping", "e", at(3, 4), request_id="B"),
        impression("before", "straddling", "a", _EDGE - _INSTANT, request_id="r"),
        impression("after", "straddling", "b", _EDGE, request_id="r"),
        impression("own", "straddling", "c", _EDGE + _INSTANT),
        impression("late", "straddling", "d", at(31)),
        impression("r1", "rare", "a", at(2)),
        impression("r2", "rare", "a", at(25)),
        impression("f1", "new", "a", at(15)),
        impression("h1", "short", "b", at(1), propensity=0.75, is_shuffled=False),
        *long,
        *longer,
        impression("s9", "longer", "c", at(30)),
    ]


def _rows(inputs: SequenceInputs, *, max_events: int) -> Rows:
    sequences = build_sequences(inputs, manifest=MANIFEST, max_events=max_events)
    assert sequences.schema.simpleString() == SEQUENCES.schema.simpleString()
    rows = {(row.user_id, row.split, row.chunk): row for row in sequences.collect()}
    for row in rows.values():
        arrays = [value for value in row if isinstance(value, list)]
        assert {len(array) for array in arrays} == {row.num_events}
        assert sum(row.is_target) == row.num_targets
    return rows


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Rows:
    """Build the sequences of all users, nothing cut off."""
    return _rows(_inputs(spark, _events()), max_events=100)


@pytest.fixture(scope="module")
def truncated(spark: SparkSession) -> Rows:
    """Build the sequences of all users, few events to a row."""
    return _rows(_inputs(spark, _events()), max_events=_TRUNCATED_TO)


def _of_user(rows: Rows, user: str) -> dict[tuple[str, int], Row]:
    return {key[1:]: row for key, row in rows.items() if key[0] == user}


def test_one_event_in_full(rows: Rows) -> None:
    """Every column of one row, worked out by hand."""
    assert _of_user(rows, "whole").keys() == {("train", 0)}
    assert rows["whole", "train", 0].asDict() == {
        "user_id": "whole",
        "user_index": 1,
        "split": "train",
        "chunk": 0,
        "num_events": 1,
        "num_targets": 1,
        "event_id": ["w1"],
        "item_index": [2],
        "event_time": [at(9, 23.5).replace(tzinfo=None)],
        "request_index": [1],
        "session_index": [1],
        "action_bits": [5],
        "dwell_bucket": [4],
        "position": [3],
        "surface_index": [2],
        "propensity": [0.125],
        "is_shuffled": [True],
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


def test_without_dates_a_source_has_no_hours_ages_or_counts(spark: SparkSession) -> None:
    undated = replace(MANIFEST, has_dates=False)
    events = [event for event in _events() if event["user_id"] == "whole"]
    inputs = _inputs(spark, events, undated)
    row = build_sequences(inputs, manifest=undated).where("user_id = 'whole'").first()
    assert row is not None
    assert (row.event_time, row.item_index) == ([at(9, 23.5).replace(tzinfo=None)], [2])
    assert row.local_hour == row.local_weekday == [-1]
    assert row.popularity_percentile == row.rate_percentile == row.age_bucket == [0]
    assert row.item_impressions_7d == row.item_positives_7d == [0]


def test_unknown_values_are_zero(rows: Rows) -> None:
    row = rows["nobody", "train", 0]
    assert row.user_index == 0
    assert row.item_index == [0, 1]
    assert row.surface_index == [0, 0]
    assert row.position == [63, 0]
    assert row.popularity_percentile == row.rate_percentile == [0, 0]
    assert row.age_bucket == row.item_impressions_7d == row.item_positives_7d == [0, 0]
    assert row.true_probability == row.propensity == row.is_shuffled == [None, None]


def test_order_is_by_time_then_request_position_and_id(rows: Rows) -> None:
    row = rows["tied", "train", 0]
    assert row.event_id == ["x", "c", "y", "d", "z"]
    # r1b and r2 began at the same instant, so neither may see the other.
    assert row.request_index == [1, 2, 2, 2, 2]


def test_overlapping_requests_never_show_an_event_its_own_instant_or_later(rows: Rows) -> None:
    row = rows["overlapping", "train", 0]
    assert row.event_id == ["a1", "b1", "c1", "a2", "b2"]
    assert row.request_index == [1, 2, 3, 1, 2]
    visible = {
        name: [row.event_id[m] for m in range(n) if row.request_index[m] < row.request_index[n]]
        for n, name in enumerate(row.event_id)
    }
    assert visible == {"a1": [], "b1": ["a1"], "c1": ["a1", "b1"], "a2": [], "b2": ["a1", "a2"]}


def test_splits_are_strict_in_time_and_a_straddling_request_is_no_later_target(rows: Rows) -> None:
    seen = {
        key[0]: list(zip(row.event_id, row.is_target, strict=True))
        for key, row in _of_user(rows, "straddling").items()
    }
    assert seen == {
        "train": [("before", True)],
        "validation": [("before", False), ("after", False), ("own", True)],
        "test": [("before", False), ("after", False), ("own", False), ("late", False)],
    }
    assert rows["straddling", "validation", 0].request_index == [1, 1, 2]


def test_history_fills_the_places_that_dated_events_leave(truncated: Rows) -> None:
    row = truncated["short", "train", 0]
    assert row.event_id == [None, None, "h1"]
    assert row.item_index == [7, 8, 2]
    assert row.event_time == [None, None, at(1).replace(tzinfo=None)]
    assert row.action_bits == [0, LIKE, 0]
    assert row.dwell_bucket == [0, 3, 0]
    assert row.request_index == [1, 2, 3]
    assert row.local_hour == [-1, -1, 12]
    assert row.local_weekday == [-1, -1, 0]
    assert row.position == [0, 0, 0]
    assert row.propensity == [None, None, 0.75]
    assert row.is_shuffled == [None, None, False]
    assert row.is_target == [False, False, True]


def test_a_full_train_row_holds_the_newest_dated_events_alone(rows: Rows, truncated: Rows) -> None:
    assert truncated["long", "train", 0].event_id == ["t2", "t3", "t4"]
    assert truncated["long", "train", 0].num_targets == 3
    assert rows["long", "train", 0].event_id == [None, "t1", "t2", "t3", "t4"]
    assert rows["long", "train", 0].num_targets == 4


def test_chunks_hold_each_event_once_behind_its_own_context(truncated: Rows) -> None:
    of_user = _of_user(truncated, "long")
    events = {key: (row.event_id, row.num_targets) for key, row in of_user.items()}
    assert events == {
        ("train", 0): (["t2", "t3", "t4"], 3),
        ("validation", 0): (["t2", "t3", "t4", "v"], 1),
        ("test", 0): (["t3", "t4", "v", "s0", "s1", "s2"], 3),
        ("test", 1): (["s0", "s1", "s2", "s3", "s4"], 2),
    }
    assert of_user["test", 1].is_target == [False, False, False, True, True]
    assert of_user["test", 1].request_index == [1, 2, 3, 4, 5]


def test_a_later_event_changes_no_earlier_chunk(truncated: Rows) -> None:
    before, after = _of_user(truncated, "long"), _of_user(truncated, "longer")
    assert after["test", 1].event_id == ["s0", "s1", "s2", "s3", "s4", "s9"]
    for key in before.keys() - {("test", 1)}:
        same_user = {"user_id": "longer", "user_index": 9}
        assert after[key].asDict() == before[key].asDict() | same_user


def test_users_appear_only_in_splits_where_they_have_events(rows: Rows) -> None:
    assert _of_user(rows, "rare").keys() == {("train", 0), ("test", 0)}
    assert rows["rare", "test", 0].event_id == ["r1", "r2"]
    assert _of_user(rows, "new").keys() == {("validation", 0)}
    assert _of_user(rows, "history alone") == {}


def test_a_session_ends_after_half_an_hour_without_an_event(spark: SparkSession) -> None:
    times = {"a": 0, "b": 1_800, "c": 3_600.000001, "d": 3_600.000001, "e": 86_400 * 9, "f": 86_401}
    events = [
        impression(name, "short", "a", at(2) + timedelta(seconds=seconds))
        for name, seconds in times.items()
    ]
    rows = _rows(_inputs(spark, events), max_events=4)
    train = rows["short", "train", 0]
    assert train.event_id == ["b", "c", "d", "f"]
    assert train.session_index == [1, 2, 2, 3]
    # The context of a later row counts from 1 again, and undated history is in no session.
    assert rows["short", "validation", 0].event_id == ["b", "c", "d", "f", "e"]
    assert rows["short", "validation", 0].session_index == [1, 2, 2, 3, 4]
    whole = _rows(_inputs(spark, events), max_events=9)["short", "train", 0]
    assert whole.session_index == [0, 0, 0, 1, 1, 2, 2, 3]


def test_an_event_filed_under_two_days_stands_once_as_it_arrived_last(spark: SparkSession) -> None:
    night = at(2, 23.9)
    first = impression("x", "short", "a", night, arrival_date=date(2024, 1, 3), action_bits=CLICK)
    copies = [
        {**first, "event_date": date(2024, 1, 3), "action_bits": LIKE},
        {**first, "arrival_date": date(2024, 1, 2), "action_bits": HIDE, "event_time": at(3)},
    ]
    other = impression("x", "tied", "b", night)  # of another user: an event of its own
    both = []
    for rows in ([first, *copies, other], [other, *reversed(copies), first]):
        found = _rows(_inputs(spark, rows), max_events=9)
        both.append([found[user, "train", 0].action_bits for user in ("short", "tied")])
    # Of the two that arrived on the 3rd, with equal times, the greater action bits win.
    assert both == [[[CLICK, 0, LIKE, LIKE], [0]]] * 2


def test_no_events_give_no_rows(spark: SparkSession) -> None:
    assert _rows(_inputs(spark, []), max_events=9) == {}


def test_max_events_must_be_positive(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="max_events must be at least 1, not 0"):
        build_sequences(_inputs(spark, []), manifest=MANIFEST, max_events=0)
