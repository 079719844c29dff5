"""The item side of the simulated feed: items with text and appeal, and the shared effects."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from pipelines.sources.simulation.config import NUM_PLANTED_TOPICS, FeedConfig
from pipelines.sources.simulation.wording import TEMPLATES, VOCABULARY, topic_names

DAY_SECONDS = 86_400
DAYPARTS = 4
NEW_FRACTION = 0.2  # items published while the log runs
REPEATED_TEXT_FRACTION = 0.004  # items that repeat an earlier item's text word for word
_CATALOGUE_STREAM = 2**32  # keeps the catalogue's random stream away from every block's


# Shapes: I items, T topics, P dayparts.
@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Hold the parameters that all users share; one entry per item unless said.

    Attributes:
        topic: Topic index of each item.
        appeal: Log-odds that an item adds when new.
        created: Publication, seconds after the log's start (negative: before it).
        duration_ms: Reading time in milliseconds.
        author: Author index; an author writes about one topic.
        texts: Title of each item, never its identifier.
        predecessor: Item whose click leads to this one, or -1.
        successor: Item that a click on this one leads to, or -1.
        daypart: Log-odds of each topic in each daypart, shape (T, P); rows sum to zero.
        cause: Topic whose click raises this one, one entry per topic.
    """

    topic: np.ndarray
    appeal: np.ndarray
    created: np.ndarray
    duration_ms: np.ndarray
    author: np.ndarray
    texts: tuple[str, ...]
    predecessor: np.ndarray
    successor: np.ndarray
    daypart: np.ndarray
    cause: np.ndarray


@lru_cache(maxsize=4)
def build_catalogue(config: FeedConfig) -> Catalogue:
    """Draw the catalogue and the shared effects from the seed alone."""
    rng = np.random.default_rng((config.seed, _CATALOGUE_STREAM))
    num_topics = NUM_PLANTED_TOPICS if config.preset else len(topic_names())
    topic_I = rng.permutation(np.arange(config.items) % num_topics)
    is_new_I = rng.random(config.items) < NEW_FRACTION
    age_days_I = rng.uniform(0.1, 2 * config.popularity_half_life_days, config.items)
    created_I = np.where(is_new_I, rng.uniform(0, config.days, config.items), -age_days_I)
    predecessor_I, successor_I = _pair_items(config, is_new_I, rng)
    return Catalogue(
        topic=topic_I,
        appeal=rng.normal(0.0, config.popularity_scale, config.items),
        created=np.floor(created_I * DAY_SECONDS),
        duration_ms=1_000 * np.clip(rng.lognormal(3.5, 0.5, config.items), 8, 100).astype(int),
        author=topic_I + num_topics * rng.integers(0, 20, config.items),
        texts=_write_texts(topic_I, rng),
        predecessor=predecessor_I,
        successor=successor_I,
        daypart=config.daypart_scale * _daypart_signs(num_topics, rng),
        cause=_cycle(num_topics, rng),
    )


def _pair_items(
    config: FeedConfig, is_new_I: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw disjoint (predecessor, successor) pairs among the items older than the log."""
    predecessor_I = np.full(config.items, -1)
    successor_I = np.full(config.items, -1)
    old = rng.permutation(np.flatnonzero(~is_new_I))
    num_pairs = 0 if config.preset else config.transition_pairs
    first, second = old[:num_pairs], old[-num_pairs:]
    if num_pairs:
        successor_I[first] = second
        predecessor_I[second] = first
    return predecessor_I, successor_I


def _daypart_signs(num_topics: int, rng: np.random.Generator) -> np.ndarray:
    """Give each topic two good and two bad dayparts, all six patterns in turn."""
    patterns = np.full((6, DAYPARTS), -1.0)
    for row, good in enumerate(combinations(range(DAYPARTS), 2)):
        patterns[row, list(good)] = 1.0
    return patterns[rng.permutation(num_topics) % len(patterns)]


def _cycle(num_topics: int, rng: np.random.Generator) -> np.ndarray:
    """Return one cycle over all topics: the cause of each."""
    order = rng.permutation(num_topics)
    cause_T = np.empty(num_topics, dtype=int)
    cause_T[order] = np.roll(order, 1)
    return cause_T


def _write_texts(topic_I: np.ndarray, rng: np.random.Generator) -> tuple[str, ...]:
    """Write a distinct title for each item, then repeat a few word for word."""
    vocabulary = [tuple(words.split() for words in VOCABULARY[name]) for name in topic_names()]
    texts: list[str] = []
    used: set[str] = set()
    for topic in topic_I:
        text = _write_title(*vocabulary[topic], rng=rng)
        while text in used:
            text = _write_title(*vocabulary[topic], rng=rng)
        used.add(text)
        texts.append(text)
    num_repeated = max(1, round(REPEATED_TEXT_FRACTION * len(texts)))
    for copy in rng.choice(np.arange(len(texts) // 2, len(texts)), num_repeated, replace=False):
        texts[copy] = texts[np.flatnonzero(topic_I == topic_I[copy])[0]]
    return tuple(texts)


def _write_title(
    things: list[str], qualities: list[str], doings: list[str], *, rng: np.random.Generator
) -> str:
    thing, second, third, fourth = rng.choice(things, 4, replace=False)
    quality, other = rng.choice(qualities, 2, replace=False)
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    return template.format(
        thing=thing,
        second=second,
        third=third,
        fourth=fourth,
        quality=quality,
        other=other,
        doing=rng.choice(doings),
    )
