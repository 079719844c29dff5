"""A tiny planted world of prompts: members like one topic, items say theirs and how popular."""

from datetime import date, timedelta
from typing import Any

import numpy as np

TOPICS = ("cooking", "chess", "music", "hiking", "finance", "gardening")
_WORDS = {
    "cooking": "soup bread sauce pasta dough salad",
    "chess": "rook bishop gambit knight queen pawn",
    "music": "violin guitar melody chord drum choir",
    "hiking": "trail summit ridge valley tent boots",
    "finance": "bond stock credit budget loan fund",
    "gardening": "rose tulip hedge lawn fern soil",
}
NUM_ITEMS = 60
DAYS = 6
FIRST = date(2025, 3, 3)


def topic_of(item: int) -> str:
    return TOPICS[item % len(TOPICS)]


def words_of(item: int) -> str:
    words = _WORDS[topic_of(item)].split()
    return " ".join(words[(item // len(TOPICS) + step) % len(words)] for step in range(3))


def item_columns() -> dict[str, list[Any]]:
    """Return one prompt for every item on every day."""
    rows = [(item, day) for day in range(DAYS) for item in range(1, NUM_ITEMS + 1)]
    return {
        "item_index": [item for item, _ in rows],
        "event_date": [FIRST + timedelta(days=day) for _, day in rows],
        "prompt": [
            f"<ST_P1> {topic_of(item)} <ST_P3> <ST_pct> <ST_{percentile(item, day)}> <ST_/pct> "
            f"<ST_P2> {words_of(item)}"
            for item, day in rows
        ],
    }


def percentile(item: int, day: int) -> int:
    return 1 + (item * 37 + day) % 100


def member_columns(count: int = 400, *, seed: int = 0, liking: float = 0.9) -> dict[str, list[Any]]:
    """Return engagements of members who like one topic each, over all splits."""
    generator = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        own = [item for item in range(1, NUM_ITEMS + 1) if topic_of(item) == topic]
        taste = generator.permutation(own)
        positive = bool(generator.random() < 0.5)
        others = [item for item in range(1, NUM_ITEMS + 1) if topic_of(item) != topic]
        asked = int(taste[4]) if positive == (generator.random() < liking) else others[number % 50]
        split = ("train",) * 8 + ("validation", "test")
        day = int(generator.integers(0, 4)) if number % 10 < 8 else number % 10 - 4
        history = [int(item) for item in taste[:4]]
        posts = " ".join(f"<ST_history_post> {words_of(item)}" for item in history)
        row = {
            "user_id": f"u{number // 2}",
            "split": split[number % 10],
            "event_date": FIRST + timedelta(days=day),
            "item_index": asked,
            "is_positive": positive,
            "negative_item_indices": [others[(number * 7) % 50], others[(number * 11) % 50]],
            "history_item_indices": history,
            "prompt": f"<ST_M0> what next <ST_M1> member <ST_history> {posts}",
        }
        for name, value in row.items():
            columns[name].append(value)
    return columns


def chosen(columns: dict[str, list[Any]], keep: list[bool]) -> dict[str, list[Any]]:
    """Return the rows that are kept."""
    return {
        name: [value for value, kept in zip(values, keep, strict=True) if kept]
        for name, values in columns.items()
    }


_COLUMNS = (
    "user_id",
    "split",
    "event_date",
    "item_index",
    "is_positive",
    "negative_item_indices",
    "history_item_indices",
    "prompt",
)
