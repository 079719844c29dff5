"""The reachable probability against an oracle that enumerates every combination of tastes."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from pipelines.sources.simulation.block import simulate_block
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import FeedConfig

CONFIG = FeedConfig(users=40, days=10, sessions_per_user=3.0, seed=3)
FURTHER = (("long_dwell", -0.3, 0.9), ("like", -1.6, 1.0), ("comment", -2.8, 0.8))
FURTHER += (("share", -3.2, 0.8),)


def _sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def _requests(user: int) -> list[list[dict[str, float]]]:
    """Return a user's events by request, as plain numbers."""
    columns = simulate_block(CONFIG, 0)
    mine = np.flatnonzero(columns["user"] == user)
    events = [{name: values[row].item() for name, values in columns.items()} for row in mine]
    numbers = sorted({event["request"] for event in events})
    return [[event for event in events if event["request"] == number] for number in numbers]


def _known_logit(event: dict[str, float], past: list[list[dict[str, float]]]) -> float:
    """Add up the terms that need no taste, from the definitions of the knobs."""
    catalogue = build_catalogue(CONFIG)
    item = int(event["item"])
    topic = catalogue.topic[item]
    clicked = [[int(e["item"]) for e in request if e["clicked"]] for request in past]
    age_days = (event["time"] - catalogue.created[item]) / 86_400
    logit = CONFIG.base_logit
    logit += catalogue.daypart[topic, int(event["time"] % 86_400 // 21_600)]
    logit += catalogue.appeal[item] * 0.5 ** (age_days / CONFIG.popularity_half_life_days)
    logit -= CONFIG.position_scale * (event["position"] - 2.5)
    recent = [i for request in clicked[-CONFIG.causal_requests :] for i in request]
    if catalogue.cause[topic] in {catalogue.topic[i] for i in recent}:
        logit += CONFIG.causal_boost
    if item in {catalogue.successor[i] for i in (clicked[-1] if clicked else [])}:
        logit += CONFIG.transition_boost
    return logit


def _event_likelihood(event: dict[str, float], logit: float, level: int) -> float:
    click = _sigmoid(logit + CONFIG.taste_scale * level)
    if not event["clicked"]:
        return 1 - click
    likelihood = click
    for name, base, gain in FURTHER:
        chance = _sigmoid(base + gain * level)
        likelihood *= chance if event[name] else 1 - chance
    return likelihood


def _enumerate(user: int) -> list[tuple[float, float]]:
    """Return (reachable probability, oracle) of every event of a user."""
    catalogue = build_catalogue(CONFIG)
    requests = _requests(user)
    share = CONFIG.taste_fraction
    prior = {-1: share, 0: 1 - 2 * share, 1: share}
    tastes = np.array(list(product((-1, 0, 1), repeat=8)))
    weights = np.prod(np.vectorize(prior.get)(tastes), axis=1)
    pairs = []
    for number, request in enumerate(requests):
        factors = np.ones(len(tastes))
        for event in request:
            logit = _known_logit(event, requests[:number])
            levels = tastes[:, catalogue.topic[int(event["item"])]]
            chances = _sigmoid(logit + CONFIG.taste_scale * levels)
            pairs.append((event["reachable_probability"], weights @ chances / weights.sum()))
            by_level = {k: _event_likelihood(event, logit, k) for k in (-1, 0, 1)}
            factors *= np.vectorize(by_level.get)(levels)
        weights = weights * factors
    return pairs


@pytest.mark.parametrize("user", [0, 7, 23])
def test_equals_the_enumeration_of_all_tastes_given_earlier_requests(user: int) -> None:
    pairs = _enumerate(user)
    assert len(pairs) >= 6
    for reachable, oracle in pairs:
        assert reachable == pytest.approx(oracle, rel=1e-9)


def test_the_planted_probability_is_the_one_of_the_users_own_taste() -> None:
    requests = _requests(7)
    for number, request in enumerate(requests):
        for event in request:
            logit = _known_logit(event, requests[:number])
            planted = _sigmoid(logit + CONFIG.taste_scale * (event["level"] - 1))
            assert event["true_probability"] == pytest.approx(planted, rel=1e-6)
