"""The planted toys of the simulated feed: exact references, the known limits, and their log."""

from collections.abc import Mapping
from itertools import product
from math import comb, log

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.cleaning import split_raw
from pipelines.interactions import label_impressions
from pipelines.sources import simulated_feed as feed
from pipelines.sources.simulation.block import BLOCK_USERS
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import FeedConfig
from pipelines.sources.simulation.planted import planted_block

BLOCKS = 40
# The users that the limit is averaged over differ by 0.03 and 0.043 each: this is over four
# standard errors of their mean.
TOLERANCE = 0.002


@pytest.fixture(scope="module", params=["dog_cat", "daypart"])
def config(request: pytest.FixtureRequest) -> FeedConfig:
    return FeedConfig(preset=request.param, users=BLOCKS * BLOCK_USERS)


@pytest.fixture(scope="module")
def impressions(config: FeedConfig) -> dict[str, np.ndarray]:
    """Return all impressions, one row per user in the order of time."""
    blocks = [planted_block(config, block) for block in range(BLOCKS)]
    return {name: _by_user(np.stack([block[name] for block in blocks])) for name in blocks[0]}


def _by_user(values: np.ndarray) -> np.ndarray:
    """Turn (blocks, events x users of a block) into (users, events)."""
    return values.reshape(BLOCKS, 32, BLOCK_USERS).swapaxes(1, 2).reshape(-1, 32)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(
        probabilities * np.log2(probabilities) + (1 - probabilities) * np.log2(1 - probabilities)
    )


def _late(impressions: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return impressions[name][:, 16:]


def test_every_user_has_32_events_with_the_gaps_of_the_toy(
    config: FeedConfig, impressions: dict[str, np.ndarray]
) -> None:
    assert (impressions["request"] == np.arange(32)).all()
    assert (impressions["user"] == np.arange(config.users)[:, None]).all()
    gaps = np.diff(impressions["time"], axis=1)
    assert gaps.min() > 59.9
    # Of an exponential with a mean of 0.35 days, half are below 0.35 ln 2 days. One gap in fifty
    # is that of a user whose events go on from the log's beginning.
    assert np.median(gaps) == pytest.approx(0.35 * log(2) * 86_400, rel=0.02)
    per_day = np.bincount((impressions["time"] // 86_400).astype(int).ravel(), minlength=30)
    assert per_day.min() > 0.9 * per_day.max()


def test_with_the_coins_known_the_entropy_is_the_floor(
    impressions: dict[str, np.ndarray],
) -> None:
    true = impressions["true_probability"]
    assert set(np.unique(true)) == {0.1, 0.9}
    assert np.abs(_entropy(true) - 0.4690).max() < 1e-4
    assert true.mean() == pytest.approx(0.5, abs=0.005)


def test_the_best_predictor_reaches_the_limit_of_the_toy(
    config: FeedConfig, impressions: dict[str, np.ndarray]
) -> None:
    reachable, clicked = _late(impressions, "reachable_probability"), _late(impressions, "clicked")
    limit = {"dog_cat": 0.4956, "daypart": 0.579}[config.preset]
    assert _entropy(reachable).mean() == pytest.approx(limit, abs=TOLERANCE)
    # By the clicks themselves, which are noisier: a standard error is 0.003.
    losses = -np.log2(np.where(clicked, reachable, 1 - reachable))
    assert losses.mean() == pytest.approx(limit, abs=0.012)


def test_the_limit_of_dog_cat_is_the_mean_over_all_counts_of_earlier_clicks() -> None:
    """Event k shares its category with n ~ Binomial(k, 1/4) earlier ones, j of them clicked."""
    total = 0.0
    for k, n in product(range(16, 32), range(32)):
        for j in range(n + 1):
            liked, disliked = (comb(n, j) * p**j * (1 - p) ** (n - j) for p in (0.9, 0.1))
            click = (0.9 * liked + 0.1 * disliked) / (liked + disliked)
            weight = comb(k, n) * 0.25**n * 0.75 ** (k - n) * (liked + disliked) / 2
            total += weight * _entropy(np.array(click)) / 16
    assert total == pytest.approx(0.4956, abs=0.0005)


@pytest.mark.parametrize("user", [0, 99, 5_000])
def test_reachable_equals_the_enumeration_of_all_coins(
    config: FeedConfig, impressions: dict[str, np.ndarray], user: int
) -> None:
    topic = build_catalogue(config).topic[impressions["item"][user]]
    is_afternoon = impressions["time"][user] % 86_400 >= 43_200
    coin = topic + 4 * is_afternoon if config.preset == "daypart" else topic
    assert set(topic) <= {0, 1, 2, 3}
    likes = np.array(list(product([False, True], repeat=8 if config.preset == "daypart" else 4)))
    weights = np.full(len(likes), 1 / len(likes))
    for event in range(32):
        chances = np.where(likes[:, coin[event]], 0.9, 0.1)
        expected = weights @ chances / weights.sum()
        assert impressions["reachable_probability"][user, event] == pytest.approx(expected)
        weights *= chances if impressions["clicked"][user, event] else 1 - chances


def test_clicks_follow_the_users_coins(
    config: FeedConfig, impressions: dict[str, np.ndarray]
) -> None:
    true, clicked = impressions["true_probability"], impressions["clicked"]
    for probability in (0.1, 0.9):
        assert clicked[true == probability].mean() == pytest.approx(probability, abs=0.004)
    topic = build_catalogue(config).topic[impressions["item"]]
    mixed = np.mean([len(set(true[user][topic[user] == 0])) == 2 for user in range(2_000)])
    # With two coins per category they differ for half of the users, most of whom show both.
    assert (mixed == 0) if config.preset == "dog_cat" else (0.4 < mixed < 0.5)


def test_what_the_log_keeps_is_what_was_planted(spark: SparkSession) -> None:
    options = {"preset": "daypart", "users": "200", "days": "12", "timezone": "Asia/Shanghai"}
    manifest = feed.describe(spark, None, options)
    assert (manifest.actions, manifest.positive_actions) == (("click",), ("click",))
    raw = feed.events(
        spark, None, manifest, options, start=manifest.start_date, end=manifest.end_date
    )
    kept, _ = split_raw(raw, items=feed.items(spark, None, manifest, options), manifest=manifest)
    labelled = label_impressions(kept, manifest=manifest)
    names = ("user", "true_probability", "reachable_probability", "clicked")
    rows = labelled.select(
        F.substring("user_id", 2, 7).cast("long").alias("user"),
        "true_probability",
        "reachable_probability",
        (F.col("action_bits") == 1).alias("clicked"),
        "propensity",
        "is_shuffled",
    ).toPandas()
    assert len(rows) == 200 * 32
    assert set(rows["propensity"]) == {1.0}
    assert set(rows["is_shuffled"]) == {False}
    truth = feed.references(spark, options).select(*names).toPandas()
    order = list(names)
    assert (
        rows.sort_values(order)[order].to_numpy().tolist()
        == truth.sort_values(order).to_numpy().tolist()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "cat_dog"}, "option preset must be one of"),
        (
            {"preset": "dog_cat", "taste_scale": "3"},
            "option taste_scale says nothing with preset dog_cat",
        ),
        ({"preset": "daypart", "slots": "2"}, "option slots says nothing with preset daypart"),
    ],
)
def test_a_knob_that_a_preset_fixes_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeedConfig.from_options(options)


def test_a_preset_takes_a_small_catalogue() -> None:
    config = FeedConfig.from_options({"preset": "dog_cat", "items": "64", "users": "10"})
    items = planted_block(config, 0)["item"]
    assert set(build_catalogue(config).topic[items]) == {0, 1, 2, 3}
    assert (build_catalogue(config).created[items] < 0).all()
