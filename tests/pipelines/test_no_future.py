"""Moving the future changes nothing that was known before it.

A log is drawn at random, and versions of items and users with it; then all that happens after a
cut is dropped or drawn anew, events and changes of attributes alike, and every table between
interactions and prompts is built again. What belongs to the events up to the cut must be as it
was: their feature columns, the events they may see, their prompts, the cuts and item prompts of
the days up to the cut, and the texts that IDs are made from.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from pipelines.event_features import FeatureInputs
from pipelines.item_counters import count_items
from pipelines.item_days import sum_item_days
from pipelines.item_numbers import item_numbers, mean_rates
from pipelines.item_prompts import ItemPromptInputs, build_item_prompts
from pipelines.item_text import build_item_text
from pipelines.items import build_item_versions, build_items
from pipelines.known_counters import known_counters
from pipelines.member_prompts import MemberPromptConfig, MemberPromptInputs, build_member_prompts
from pipelines.percentile_cuts import days_to_fit, fit_cuts
from pipelines.sequence_events import build_sequence_events
from pipelines.sequences import SequenceInputs, build_sequences
from pipelines.tables import INTERACTIONS
from pipelines.users import build_user_versions, build_users
from tests.pipelines.sequence_rows import MANIFEST, frame, impression

_MAX_EVENTS = 12
_USERS = [f"U{n}" for n in range(6)]
_ITEM_IDS = [f"item{n}" for n in range(14)]
_START = datetime(2024, 1, 1, tzinfo=UTC)
_PER_ROW = ("split", "chunk", "num_events", "num_targets", "user_id", "user_index")
# Compared through what they let an event see.
_OWN = ("request_index", "session_index", "is_target", "event_id")
_CATALOGUE = (
    "item_id string, valid_from timestamp, created_time timestamp, author_id string, "
    "tags array<string>, text string, duration_ms bigint, features map<string,string>"
)
_PROFILES = "user_id string, valid_from timestamp, text string, features map<string,string>"
_HISTORY = "user_id string, item_ids array<string>, action_bits array<int>, dwell_bucket array<int>"


def _draw(rng: random.Random, *, prefix: str, since: datetime) -> list[dict[str, Any]]:
    """Draw requests of up to three impressions; some overlap, some share their instant."""
    events, policy = [], random.Random(prefix)
    for number in range(220):
        begin = _START + timedelta(hours=rng.randrange(31 * 24))
        user = rng.choice(_USERS)
        for place in range(rng.randint(1, 3)):
            time = begin + timedelta(hours=rng.choice([0, 0, 0, 1, 30]))
            event = impression(
                f"{prefix}{number}-{place}",
                user,
                rng.choice(_ITEM_IDS),
                time,
                request_id=f"{prefix}{number}",
                position=place,
                surface=rng.choice(["feed", "search", None]),
                action_bits=rng.choice([0, 0, 1, 2, 3, 4]),
                dwell_bucket=rng.randrange(9),
                propensity=policy.choice([None, 0.25, 0.75]),
                is_shuffled=policy.choice([None, False, True]),
                true_probability=rng.random(),
                reachable_probability=rng.random(),
            )
            if since <= time < _START + timedelta(days=31):
                events.append(event)
    return events


@dataclass(frozen=True)
class Log:
    """Events, and how items and users were described from when on (None: since ever)."""

    events: list[dict[str, Any]]
    catalogue: list[tuple[Any, ...]]
    profiles: list[tuple[Any, ...]]

    def until(self, cut: datetime) -> "Log":
        """Return what had happened by an instant."""
        return Log(
            events=[event for event in self.events if event["event_time"] <= cut],
            catalogue=[row for row in self.catalogue if row[1] is None or row[1] <= cut],
            profiles=[row for row in self.profiles if row[1] is None or row[1] <= cut],
        )

    def __add__(self, other: "Log") -> "Log":
        """Return both logs together."""
        return Log(
            events=self.events + other.events,
            catalogue=self.catalogue + other.catalogue,
            profiles=self.profiles + other.profiles,
        )


def _draw_log(rng: random.Random, *, prefix: str, since: datetime) -> Log:
    """Draw events and changes from an instant on; at the log's start first descriptions too."""
    events = _draw(rng, prefix=prefix, since=since)
    catalogue = [_described(rng, prefix, name, _some_time(rng)) for name in _ITEM_IDS * 3]
    profiles = [_profile(rng, prefix, name, _some_time(rng)) for name in _USERS * 3]
    changes = Log(
        events=events,
        catalogue=[row for row in catalogue if row[1] > since],
        profiles=[row for row in profiles if row[1] > since],
    )
    if since > _START:
        return changes
    return changes + Log(
        events=[],
        catalogue=[_described(rng, prefix, name, None) for name in _ITEM_IDS[:-4]],
        profiles=[_profile(rng, prefix, name, None) for name in _USERS[:-1]],
    )


def _some_time(rng: random.Random) -> datetime:
    return _START + timedelta(hours=rng.randrange(31 * 24))


def _described(
    rng: random.Random, prefix: str, name: str, time: datetime | None
) -> tuple[Any, ...]:
    created = rng.choice([None, _START + timedelta(days=rng.randrange(20))])
    tags = rng.choice([[], ["slow"], ["slow", "fast"]])
    words = f"words {prefix} {rng.randrange(99)} of {name}"
    return (name, time, created, None, tags, words, rng.choice([None, 900, 60_000]), None)


def _profile(rng: random.Random, prefix: str, name: str, time: datetime | None) -> tuple[Any, ...]:
    text = f"profile {prefix} {rng.randrange(99)} of {name}"
    return (name, time, text, {"age": str(rng.randrange(9))})


@dataclass(frozen=True)
class World:
    """What the pipelines make of one log."""

    sequences: list[Row]
    members: dict[str, Row]
    items: list[Row]
    cuts: list[Row]
    texts: dict[str, Row]


def _build(spark: SparkSession, log: Log) -> World:
    catalogue = spark.createDataFrame(log.catalogue, _CATALOGUE).coalesce(1)
    profiles = spark.createDataFrame(log.profiles, _PROFILES).coalesce(1)
    interactions = frame(spark, INTERACTIONS, log.events).cache()
    item_days = sum_item_days(interactions, manifest=MANIFEST).cache()
    versions = build_item_versions(catalogue, item_days, manifest=MANIFEST).cache()
    items = build_items(versions, item_days, manifest=MANIFEST).cache()
    history = spark.createDataFrame([("U1", ["item3"], [1], [2])], _HISTORY)
    profiled = build_user_versions(profiles, interactions, history=history).cache()
    start, end = MANIFEST.start_date, MANIFEST.end_date
    counters = count_items(item_days, manifest=MANIFEST, start=start, end=end).cache()
    known = known_counters(item_days, manifest=MANIFEST, start=start, end=end)
    rates = mean_rates(item_days, manifest=MANIFEST)
    numbers = item_numbers(known, rates=rates, versions=versions, manifest=MANIFEST)
    cuts = fit_cuts(numbers, days=days_to_fit(item_days), start=start, end=end).cache()
    known_of_items = {
        "versions": versions,
        "item_days": item_days,
        "counters": counters,
        "cuts": cuts,
    }
    segments = build_sequence_events(
        interactions, inputs=FeatureInputs(**known_of_items), manifest=MANIFEST
    )
    of_sequences = SequenceInputs(
        events=segments,
        items=items,
        users=build_users(profiled, manifest=MANIFEST),
        history=history,
    )
    of_members = MemberPromptInputs(
        interactions=interactions, items=versions, users=profiled, history=history
    )
    texts = build_item_text(versions, items=items, manifest=MANIFEST)
    everything = MemberPromptConfig(ranking_per_user=(999, 999, 999))
    world = World(
        sequences=build_sequences(
            of_sequences, manifest=MANIFEST, max_events=_MAX_EVENTS
        ).collect(),
        members=_by_event(build_member_prompts(of_members, manifest=MANIFEST, config=everything)),
        items=build_item_prompts(ItemPromptInputs(**known_of_items), manifest=MANIFEST).collect(),
        cuts=cuts.collect(),
        texts={row.item_id: row for row in texts.collect()},
    )
    for table in (interactions, item_days, versions, items, profiled, counters, cuts):
        table.unpersist()
    return world


def _by_event(prompts: DataFrame) -> dict[str, Row]:
    return {row.event_id: row for row in prompts.collect()}


def _own_events(world: World, cut: datetime) -> Iterator[tuple[Row, int]]:
    """Yield each row and place of an event that the row is about, up to the cut."""
    edges = {
        "train": _START,
        "validation": MANIFEST.validation_start,
        "test": MANIFEST.test_start,
    }
    for row in world.sequences:
        context = _context_size(row, edges[row.split])
        for place in range(context, row.num_events):
            if _time(row, place) <= cut:
                yield row, place


def _context_size(row: Row, edge: datetime) -> int:
    earlier = sum(time is None or time.replace(tzinfo=UTC) < edge for time in row.event_time)
    return max(earlier, _MAX_EVENTS) if row.chunk else earlier


def _time(row: Row, place: int) -> datetime:
    return row.event_time[place].replace(tzinfo=UTC)


def _features(row: Row, place: int) -> dict[str, Any]:
    columns = [name for name in row.__fields__ if name not in _PER_ROW + _OWN]
    return {name: row[name][place] for name in columns}


def _visible(row: Row, place: int) -> list[dict[str, Any]]:
    """Return the features of the events that an event may use, oldest first."""
    return [
        _features(row, m) | {"is_same_visit": row.session_index[m] == row.session_index[place]}
        for m in range(place)
        if row.request_index[m] < row.request_index[place]
    ]


@pytest.fixture(scope="module")
def past() -> Log:
    """Draw the log."""
    return _draw_log(random.Random(1), prefix="p", since=_START)


@pytest.fixture(scope="module")
def world(spark: SparkSession, past: Log) -> World:
    """Build everything from the log as it is."""
    return _build(spark, past)


def test_an_event_sees_only_strictly_earlier_events(world: World) -> None:
    later = MANIFEST.test_start + timedelta(days=99)
    seen = 0
    for row, place in _own_events(world, later):
        for other in _visible(row, place):
            time = other["event_time"]
            assert time is None or time < row.event_time[place]
            seen += 1
    assert seen > 1000
    overlapping = [row for row in world.sequences if row.request_index != sorted(row.request_index)]
    assert overlapping, "the log must hold requests that overlap"


@pytest.mark.parametrize(
    ("is_dropped", "cut_hours"),
    [(True, 24 * 16 + 7.5), (False, 24 * 7 + 3.5), (False, 24 * 24 + 13.5)],
)
def test_moving_the_future_changes_nothing_before_it(
    spark: SparkSession,
    past: Log,
    world: World,
    *,
    is_dropped: bool,
    cut_hours: float,
) -> None:
    cut = _START + timedelta(hours=cut_hours)
    future = Log([], [], [])
    if not is_dropped:
        future = _draw_log(random.Random(2), prefix="f", since=cut)
    moved = _build(spark, past.until(cut) + future)
    _compare_sequences(world, moved, cut)
    _compare_prompts(world, moved, cut)
    day = cut.date()
    known_cuts = [
        {tuple(map(str, row)) for row in of.cuts if row.event_date <= day} for of in (world, moved)
    ]
    assert known_cuts[0] == known_cuts[1]
    _compare_texts(world, moved, past, cut)


def _compare_texts(world: World, moved: World, past: Log, cut: datetime) -> None:
    """Compare what IDs are made from, of the items that were described by the cut.

    From the validation split on, of all items that had been shown before it as well.
    """
    described = {row[0] for row in past.until(cut).catalogue}
    if cut >= MANIFEST.validation_start:
        described |= {
            event["item_id"]
            for event in past.events
            if event["event_time"] < MANIFEST.validation_start
        }
    assert len(described) > 9
    for name in described:
        assert moved.texts[name].text == world.texts[name].text


def test_attributes_change_in_the_log_and_prompts_with_them(world: World, past: Log) -> None:
    """Without this the comparison above would say nothing of versions."""
    words = {user: set[str]() for user in _USERS}
    for row in world.members.values():
        words[row.user_id].add(row.prompt.split("<ST_M2>")[0])
    assert sum(len(texts) > 1 for texts in words.values()) > 3
    of_items = {name: set[str]() for name in _ITEM_IDS}
    for row in world.items:
        of_items[row.item_id].add(row.prompt.split("<ST_P2>")[1])
    assert sum(len(texts) > 2 for texts in of_items.values()) > 5
    late = {row[0] for row in past.catalogue} - {row[0] for row in past.until(_START).catalogue}
    assert any("no description" in text for name in late for text in of_items[name])


def _compare_sequences(world: World, moved: World, cut: datetime) -> None:
    after = {
        (row.split, row.event_id[place]): (row, place) for row, place in _own_events(moved, cut)
    }
    compared = 0
    for row, place in _own_events(world, cut):
        key = (row.split, row.event_id[place])
        if key not in after:
            # Only the train row, cut at the split boundary, lets old events go.
            assert row.split == "train"
            continue
        other, other_place = after[key]
        assert _features(other, other_place) == _features(row, place), key
        seen, seen_after = _visible(row, place), _visible(other, other_place)
        if row.split == "train":
            shorter = min(len(seen), len(seen_after))
            seen, seen_after = (
                seen[-shorter:] * bool(shorter),
                seen_after[-shorter:] * bool(shorter),
            )
        assert seen_after == seen, key
        assert other.is_target[other_place] == row.is_target[place]
        compared += 1
    assert compared > 20


def _compare_prompts(world: World, moved: World, cut: datetime) -> None:
    flags = {"for_retrieval", "for_ranking"}  # who is chosen may depend on the rest of the split
    times = {
        name: time.replace(tzinfo=UTC)
        for row in world.sequences
        for name, time in zip(row.event_id, row.event_time, strict=True)
        if time is not None
    }
    known = [name for name in world.members if name in times and times[name] <= cut]
    assert len(known) > 20
    for name in known:
        before, after = world.members[name].asDict(), moved.members[name].asDict()
        assert {key: after[key] for key in after.keys() - flags} == {
            key: before[key] for key in before.keys() - flags
        }
    assert _item_prompts(moved, cut.date()) == _item_prompts(world, cut.date())


def _item_prompts(world: World, day: date) -> set[tuple[Any, ...]]:
    shown = {tuple(row) for row in world.items if row.event_date < day}
    assert shown
    return shown
