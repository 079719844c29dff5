"""The simulated feed: what is planted can be found again, and nothing else changes it."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.cleaning import split_raw
from pipelines.interactions import label_impressions
from pipelines.sources import simulated_feed as feed
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.simulation.block import simulate_block
from pipelines.sources.simulation.config import FeedConfig
from pipelines.tables import RAW_EVENTS

OPTIONS = {"users": "300", "days": "8", "invalid_fraction": "0.01", "malformed_fraction": "0.01"}
CONFIG = FeedConfig.from_options(OPTIONS)


@pytest.fixture(scope="module")
def manifest(spark: SparkSession) -> SourceManifest:
    return feed.describe(spark, None, OPTIONS)


def _events(spark: SparkSession, options: dict[str, str]) -> DataFrame:
    found = feed.describe(spark, None, options)
    return feed.events(spark, None, found, options, start=found.start_date, end=found.end_date)


@pytest.fixture(scope="module")
def raw(spark: SparkSession) -> DataFrame:
    frame = _events(spark, OPTIONS).cache()
    frame.count()
    return frame


@pytest.fixture(scope="module")
def impressions() -> dict[str, np.ndarray]:
    """Return four blocks of users of a feed of the default shape."""
    config = FeedConfig(users=1024)
    blocks = [simulate_block(config, block) for block in range(4)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(np.where(labels, probabilities, 1 - probabilities)).mean())


def test_describes_days_and_splits_from_the_options(spark: SparkSession) -> None:
    found = feed.describe(spark, None, {"days": "20", "start_date": "2025-01-01"})
    assert found.end_date == date(2025, 1, 20)
    assert found.validation_start == datetime(2025, 1, 17, tzinfo=UTC)
    assert found.test_start == datetime(2025, 1, 19, tzinfo=UTC)
    assert found.actions == ("click", "long_dwell", "like", "comment", "share")


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/data", {}, "reads no path"),
        (None, {"user": "3"}, "unknown option 'user'"),
        (None, {"users": "many"}, "option users must be of type int"),
        (None, {"users": "0"}, "option users must lie in"),
        (None, {"late_fraction": "2"}, "option late_fraction must lie in"),
        (None, {"timezone": "Mars"}, "option timezone"),
        (None, {"start_date": "soon"}, "option start_date"),
    ],
)
def test_a_wrong_path_or_option_is_named(
    spark: SparkSession, path: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        feed.describe(spark, path, options)


def test_rows_follow_the_contract(raw: DataFrame) -> None:
    found = [(field.name, field.dataType) for field in raw.schema.fields]
    assert found == [(field.name, field.dataType) for field in RAW_EVENTS.schema.fields]
    assert raw.where(F.col("event_date").isNull() | F.col("event_id").isNull()).count() == 0


def test_a_range_of_days_is_a_part_of_the_whole(
    spark: SparkSession, raw: DataFrame, manifest: SourceManifest
) -> None:
    first, last = manifest.start_date + timedelta(days=2), manifest.start_date + timedelta(days=3)
    part = feed.events(spark, None, manifest, OPTIONS, start=first, end=last)
    expected = raw.where(F.col("event_date").between(F.lit(first), F.lit(last)))
    assert expected.count() > 0
    assert part.exceptAll(expected).count() == expected.exceptAll(part).count() == 0


def test_a_block_of_users_does_not_depend_on_the_blocks_beside_it() -> None:
    alone, beside = (simulate_block(FeedConfig(users=users), 0) for users in (256, 700))
    assert alone.keys() == beside.keys()
    assert all(np.array_equal(alone[name], beside[name]) for name in alone)
    second = simulate_block(FeedConfig(users=700), 1)
    assert second["user"].min() == 256
    assert second["item"][:60].tolist() != alone["item"][:60].tolist()


def test_rows_do_not_depend_on_how_blocks_are_spread(spark: SparkSession) -> None:
    expected = [simulate_block(CONFIG, block) for block in (0, 1)]
    spread = feed.references(spark, OPTIONS).repartition(3).sort("impression").toPandas()
    for name in ("user", "item", "clicked", "true_probability", "reachable_probability"):
        together = np.concatenate([block[name] for block in expected])
        assert np.array_equal(spread[name].to_numpy(), together)


def test_another_seed_gives_another_feed() -> None:
    first, second = (simulate_block(FeedConfig(users=50, seed=seed), 0) for seed in (1, 2))
    assert first["item"][:100].tolist() != second["item"][:100].tolist()


@pytest.mark.parametrize("name", ["true_probability", "reachable_probability"])
def test_probabilities_are_calibrated_in_every_tenth(
    impressions: dict[str, np.ndarray], name: str
) -> None:
    probabilities, clicked = impressions[name], impressions["clicked"]
    tenth = np.argsort(np.argsort(probabilities)) * 10 // len(probabilities)
    for part in range(10):
        expected, observed = probabilities[tenth == part], clicked[tenth == part]
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(observed.sum() - expected.sum()) < 4 * spread


def test_the_truth_beats_the_reachable_which_beats_the_base_rate(
    impressions: dict[str, np.ndarray],
) -> None:
    clicked = impressions["clicked"]
    true, reachable = (
        _entropy(clicked, impressions[name])
        for name in ("true_probability", "reachable_probability")
    )
    base = _entropy(clicked, np.full(len(clicked), clicked.mean()))
    assert true < reachable < base


def test_every_term_left_out_costs_something(impressions: dict[str, np.ndarray]) -> None:
    clicked = impressions["clicked"]
    reachable = _entropy(clicked, impressions["reachable_probability"])
    terms = ("taste", "daypart", "causal", "popularity", "position", "transition")
    for term in terms:
        assert _entropy(clicked, impressions[f"without_{term}"]) > reachable + 0.002


def test_cleaning_finds_every_planted_row_and_keeps_every_true_one(
    spark: SparkSession, raw: DataFrame, manifest: SourceManifest
) -> None:
    catalogue = feed.items(spark, None, manifest, OPTIONS)
    kept, rejected = split_raw(raw, items=catalogue, manifest=manifest)
    reasons = {row["reason"]: row["count"] for row in rejected.groupBy("reason").count().collect()}
    num_true = kept.count()
    invalid = ("orphan_action", "unknown_item", "unknown_action", "impossible_time")
    invalid += ("missing_user", "out_of_range", "unparsable")
    for reason in invalid:
        assert reasons.pop(reason) == pytest.approx(0.01 * num_true, abs=2)
    for reason in ("exact_duplicate", "key_duplicate"):
        assert reasons.pop(reason) == pytest.approx(0.004 * num_true, abs=2)
    assert reasons == {}
    truth = feed.references(spark, OPTIONS)
    labelled = label_impressions(kept, manifest=manifest)
    recovered = labelled.select(
        F.substring("event_id", 2, 10).cast("long").alias("impression"),
        (F.col("action_bits") % 2 == 1).alias("clicked"),
        "position",
        "true_probability",
        "reachable_probability",
    )
    expected = truth.select(*recovered.columns).withColumn(
        "position", F.col("position").cast("int")
    )
    assert expected.count() > 10_000
    assert recovered.exceptAll(expected).count() == expected.exceptAll(recovered).count() == 0


def test_late_rows_have_their_share(raw: DataFrame) -> None:
    delay = F.unix_seconds("arrival_time") - F.unix_seconds("event_time")
    late = raw.where(F.col("raw_text").isNull()).select((delay > 80_000).cast("int").alias("late"))
    share = late.agg(F.avg("late")).first()
    assert share is not None
    assert 0.005 < share[0] < 0.03  # one in a hundred, and rows of times long past


def test_a_request_shows_distinct_published_items_the_user_has_not_seen(
    impressions: dict[str, np.ndarray],
) -> None:
    pairs = impressions["user"].astype(np.int64) * 100_000 + impressions["item"]
    assert len(np.unique(pairs)) == len(pairs)


def test_weighting_by_propensity_gives_the_click_rates_of_shuffled_requests() -> None:
    config = FeedConfig(users=768, shuffled_fraction=0.5, policy_popularity=2.0)
    blocks = [simulate_block(config, block) for block in (0, 1, 2)]
    names = ("is_shuffled", "position", "propensity", "clicked")
    shuffled, position, propensity, clicked = (
        np.concatenate([block[name] for block in blocks]) for name in names
    )
    assert 0.47 < shuffled.mean() < 0.53
    assert np.all(propensity[shuffled] == pytest.approx(1 / 6))
    weights = 1 / (6 * propensity)
    plain_gaps, weighted_gaps = [], []
    for place in range(6):
        here, there = ~shuffled & (position == place), shuffled & (position == place)
        rate = clicked[there].mean()
        parts = (weights[here] ** 2).sum() / here.sum() ** 2, 1 / there.sum()
        error = np.sqrt(rate * (1 - rate) * sum(parts))
        weighted = (weights[here] * clicked[here]).sum() / weights[here].sum()
        weighted_gaps.append(abs(weighted - rate) / error)
        plain_gaps.append(abs(clicked[here].mean() - rate) / error)
    assert max(weighted_gaps) < 4 < max(plain_gaps)


def test_the_default_feed_shuffles_a_tenth(impressions: dict[str, np.ndarray]) -> None:
    assert 0.08 < impressions["is_shuffled"].mean() < 0.12


def test_texts_name_their_topic_only_in_words_and_hardly_repeat(
    spark: SparkSession, manifest: SourceManifest
) -> None:
    rows = feed.items(spark, None, manifest, OPTIONS).collect()
    texts = [row["text"] for row in rows]
    assert 1 < len(texts) - len(set(texts)) < 0.01 * len(texts)
    assert not any(character.isdigit() for text in texts for character in text)
    assert {len(row["tags"]) for row in rows} == {1}
    assert len({row["tags"][0] for row in rows}) == 8


def test_users_have_a_profile(spark: SparkSession, manifest: SourceManifest) -> None:
    rows = feed.users(spark, None, manifest, OPTIONS).collect()
    assert len({row["user_id"] for row in rows}) == 300
    assert any("<|" in row["text"] for row in rows)


def test_days_and_dayparts_follow_the_clock_of_the_zone(spark: SparkSession) -> None:
    options = OPTIONS | {"timezone": "Europe/Berlin", "start_date": "2025-03-27"}
    rows = _events(spark, options).where("kind = 'impression' and position >= 0")
    first = datetime(2025, 3, 26, 23, 0, tzinfo=UTC)
    local = F.from_utc_timestamp("event_time", "Europe/Berlin")
    in_log = F.col("event_time") >= F.lit(first)
    dated = rows.where(in_log & (F.col("event_time") < F.lit(first + timedelta(days=9))))
    assert dated.count() > 10_000
    assert dated.where(F.to_date(local) != F.col("event_date")).count() == 0
    hours = {
        row[0] for row in dated.where("event_date = '2025-03-30'").select(F.hour(local)).collect()
    }
    assert 2 not in hours  # the clock jumps from two to three
    assert {1, 3, 23} <= hours
