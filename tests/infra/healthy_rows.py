"""Healthy rows of every table: they break no expectation."""

import json
from datetime import UTC, date, datetime
from typing import Any

from pipelines.sources.manifest import SourceManifest

Row = dict[str, Any]
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


def at(day: int, hour: int = 1) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def _raw(number: int, **values: Any) -> Row:
    row = {
        "event_id": f"e{number}",
        "kind": "impression",
        "user_id": "u1",
        "item_id": f"i{number}",
        "event_time": at(1),
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
        "event_time": at(1, 1),  # 09:00 in Shanghai, a Thursday
        "event_date": date(2026, 1, 1),
        "arrival_date": date(2026, 1, 1),
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
        "num_source_rows": 2,
        "later_days": [1],
        "true_probability": 0.25,
        "reachable_probability": 0.25,
    }
    return row | values


def _item(number: int) -> Row:
    return {
        "item_id": f"i{number}",
        "item_index": number,
        "created_time": at(1),
        "first_seen_time": at(2),
        "tags": ["music"],
        "text": "a song",
        "duration_ms": 9000,
    }


def _item_version(number: int, *, until: int | None = None, since: int | None = None) -> Row:
    row = _item(number) | {
        "valid_from": since and at(since),
        "valid_to": until and at(until),
        "is_identity": since is None,
    }
    return {name: value for name, value in row.items() if name != "first_seen_time"}


def _user_version(number: int, *, until: int | None = None, since: int | None = None) -> Row:
    row = {"user_id": f"u{number}", "valid_from": since and at(since)}
    return row | {"valid_to": until and at(until), "text": "likes songs"}


def _counter(day: int, before: int, week: int) -> Row:
    return {
        "item_id": "i1",
        "event_date": date(2026, 1, day),
        "impressions_before": before,
        "action_counts_before": [1, 0],
        "impressions_7d": week,
        "action_counts_7d": [1, 0],
        "first_shown_date": date(2026, 1, 2),
    }


def _item_day(day: int) -> Row:
    return {
        "item_id": "i1",
        "event_date": date(2026, 1, day),
        "arrival_date": date(2026, 1, day),
        "impressions": 5,
        "action_counts": [5, 0],
        "first_event_time": at(day),
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


def _segment(number: int) -> Row:
    return {
        "event_id": f"e{number}",
        "request_id": f"r{number}",
        "user_id": "u1",
        "item_id": f"i{number}",
        "event_time": at(2),
        "event_date": date(2026, 1, 2),
        "arrival_date": date(2026, 1, 2),
        "action_bits": 1,
        "dwell_bucket": 8,
        "position": 3,
        "surface_index": 2,
        "propensity": 0.5,
        "is_shuffled": False,
        "local_hour": 9,
        "local_weekday": 4,
        "age_bucket": 5,
        "popularity_percentile": 100,
        "rate_percentile": 0,
        "item_impressions_7d": 5,
        "item_positives_7d": 5,
        "true_probability": 0.5,
        "reachable_probability": 0.5,
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
        "event_time": [None, *(at(day) for day in days)],
        "request_index": [1, 2, 3, 4],
        "session_index": [0, 1, 2, 3],
        "action_bits": [1, 0, 3, 0],
        "dwell_bucket": [0, 1, 2, 8],
        "position": [0, 1, 2, 63],
        "surface_index": [0, 1, 2, 1],
        "propensity": [None, None, 0.5, 1.0],
        "is_shuffled": [None, None, True, False],
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
        "for_ranking": True,
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
    "item_versions": [_item_version(1, until=5), _item_version(1, since=5), _item_version(2)],
    "items": [_item(1), _item(2)],
    "user_versions": [_user_version(1, until=5), _user_version(1, since=5), _user_version(2)],
    "users": [{"user_id": f"u{n}", "user_index": n} for n in (1, 2)],
    "item_days": [_item_day(1), _item_day(2)],
    "item_counters": [_counter(2, 5, 5), _counter(9, 8, 3)],
    "percentile_cuts": [_cut("popularity"), _cut("rate")],
    "sequence_events": [_segment(1), _segment(2)],
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
