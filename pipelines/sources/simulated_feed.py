"""Simulated feed: a planted-truth log of a text feed, made by Spark, with two references.

The log-odds of a click are the sum of a base and six terms, each a knob of `FeedConfig`:

- taste: a user likes, ignores or dislikes each topic;
- daypart: each topic does well in two quarters of the local day and badly in the others;
- causal: a click on one topic raises the next topic of a cycle for the user's next requests;
- popularity: an item's own appeal, which halves with its age;
- position: rank within the request;
- transition: a click on some items raises one memorised successor in the next request.

Further actions follow a click with probabilities that depend on the taste. `true_probability` is
P(click) as planted. `reachable_probability` is the exact Bayes prediction from what is visible
when the request is made: all outcomes of the user's earlier requests, with the item side, the
shared effects and the prior known (see `simulation.posterior`). No model of the log can do
better on average; one that must also learn the item side will do a little worse.

The option `preset` plants one of two toys in place of all this (see `simulation.planted`): their
only action is the click, and the best predictor's limit is known.

Attributes of items and users never change: each has one version.

Users are simulated in blocks, each from its own random stream, so a row does not depend on the
number of partitions, and the cost per row does not depend on the number of users.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.simulation.block import BLOCK_USERS, simulate_block
from pipelines.sources.simulation.calendar import local_midnight
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import TERMS, FeedConfig
from pipelines.sources.simulation.log_rows import log_rows
from pipelines.sources.simulation.planted import planted_block
from pipelines.sources.simulation.posterior import ACTIONS
from pipelines.sources.simulation.raw_events import (
    ROWS_SCHEMA,
    SURFACES,
    as_raw_events,
    name_at,
    user_id,
)
from pipelines.sources.simulation.wording import PROFILES, topic_names

VALIDATION_FRACTION, TEST_FRACTION = 0.8, 0.9
MATURITY_SECONDS = 3_600
_IDS_PER_BLOCK = 10_000_000
_ROW_STREAM = 1  # the random stream of a block's rows, beside that of its users
_REFERENCES = ("true_probability", "reachable_probability", *(f"without_{t}" for t in TERMS))
_REFERENCES_SCHEMA = (
    "impression long, user long, item long, request long, time double, position long, "
    "clicked boolean, propensity double, is_shuffled boolean, "
    + ", ".join(f"{name} double" for name in _REFERENCES)
)


def describe(spark: SparkSession, path: str | None, options: Mapping[str, str]) -> SourceManifest:
    """Describe the feed from its options alone.

    Args:
        spark: Not used.
        path: None; the feed reads no file.
        options: Knobs of `FeedConfig` by name, as text.

    Raises:
        SourceError: If a path is given, or an option is unknown or out of range.
    """
    config = _config(path, options)
    validation_day = min(round(VALIDATION_FRACTION * config.days), config.days - 2)
    test_day = max(round(TEST_FRACTION * config.days), validation_day + 1)
    start = date.fromisoformat(config.start_date)
    actions = ("click",) if config.preset else ACTIONS
    return SourceManifest(
        source="simulated",
        actions=actions,
        primary_action="click",
        positive_actions=actions,
        surfaces=SURFACES,
        start_date=start,
        end_date=start + timedelta(days=config.days - 1),
        validation_start=local_midnight(config, validation_day),
        test_start=local_midnight(config, test_day),
        timezone=config.timezone,
        maturity_seconds=MATURITY_SECONDS,
    )


def events(
    spark: SparkSession,
    path: str | None,
    manifest: SourceManifest,
    options: Mapping[str, str],
    *,
    start: date,
    end: date,
) -> DataFrame:
    """Return the rows filed under a range of days, in the columns of `RAW_EVENTS`.

    Every user is simulated from the log's start whatever the range; days outside are dropped
    before they leave the worker. An action is filed under the day of its impression.

    Raises:
        SourceError: If the path or an option is wrong.
    """
    config = _config(path, options)
    days = ((start - manifest.start_date).days, (end - manifest.start_date).days)
    numbers = _per_block(spark, config, make=_rows_of(config, days), schema=ROWS_SCHEMA)
    return as_raw_events(numbers, config=config)


def items(
    spark: SparkSession, path: str | None, manifest: SourceManifest, options: Mapping[str, str]
) -> DataFrame:
    """Return the catalogue: titles made of topic words, the topic as the tag.

    Raises:
        SourceError: If the path or an option is wrong.
    """
    config = _config(path, options)
    catalogue = build_catalogue(config)
    start = local_midnight(config, 0)
    topics = topic_names()
    rows = [
        (
            f"i{item:05d}",
            start + timedelta(seconds=float(catalogue.created[item])),
            f"a{catalogue.author[item]:03d}",
            [topics[catalogue.topic[item]]],
            catalogue.texts[item],
            int(catalogue.duration_ms[item]),
            {"length": "long" if catalogue.duration_ms[item] > 35_000 else "short"},
        )
        for item in range(config.items)
    ]
    schema = (
        "item_id string, created_time timestamp, author_id string, tags array<string>, "
        "text string, duration_ms long, features map<string,string>"
    )
    return spark.createDataFrame(rows, schema)


def users(
    spark: SparkSession, path: str | None, manifest: SourceManifest, options: Mapping[str, str]
) -> DataFrame:
    """Return the users with a profile line, which says nothing about their tastes.

    Raises:
        SourceError: If the path or an option is wrong.
    """
    config = _config(path, options)
    profile = F.pmod(F.xxhash64(F.lit(config.seed), F.col("id")), F.lit(len(PROFILES)))
    region = F.pmod(F.xxhash64(F.col("id"), F.lit(config.seed)), F.lit(5))
    return spark.range(config.users).select(
        user_id(F.col("id")).alias("user_id"),
        name_at(profile, PROFILES).alias("text"),
        F.create_map(F.lit("region"), F.concat(F.lit("region "), region)).alias("features"),
    )


def references(spark: SparkSession, options: Mapping[str, str]) -> DataFrame:
    """Return every true impression with all reference probabilities, for the fair exam.

    Args:
        spark: The session.
        options: Knobs of `FeedConfig` by name, as text.

    Returns:
        Numbers of impression, user, item and request, seconds since the log's start, position,
        clicked, propensity, is_shuffled, the true and the reachable probability, and
        `without_<term>`: the reachable probability with that term left out.

    Raises:
        SourceError: If an option is wrong.
    """
    config = _config(None, options)

    def make(block: int) -> dict[str, np.ndarray]:
        columns = _simulate(config, block)
        return columns | {"impression": _impression_ids(block, np.arange(len(columns["user"])))}

    return _per_block(spark, config, make=make, schema=_REFERENCES_SCHEMA)


def _config(path: str | None, options: Mapping[str, str]) -> FeedConfig:
    if path is not None:
        raise SourceError(f"the simulated feed reads no path, got {path}; leave it out")
    try:
        return FeedConfig.from_options(options)
    except ValueError as error:
        raise SourceError(str(error)) from error


def _simulate(config: FeedConfig, block: int) -> dict[str, np.ndarray]:
    return planted_block(config, block) if config.preset else simulate_block(config, block)


def _impression_ids(block: int, index: np.ndarray) -> np.ndarray:
    return block * _IDS_PER_BLOCK + index


def _rows_of(config: FeedConfig, days: tuple[int, int]) -> Callable[[int], dict[str, np.ndarray]]:
    """Return a function from a block's number to its rows within a range of days."""

    def make(block: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((config.seed, block, _ROW_STREAM))
        rows = log_rows(config, _simulate(config, block), rng)
        rows["impression"] = _impression_ids(block, rows.pop("index"))
        keep = (rows["day"] >= days[0]) & (rows["day"] <= days[1])
        return {name: values[keep] for name, values in rows.items()}

    return make


def _per_block(
    spark: SparkSession,
    config: FeedConfig,
    *,
    make: Callable[[int], dict[str, np.ndarray]],
    schema: str,
) -> DataFrame:
    """Run a function on every block of users and stack what it returns."""
    names = [column.split()[0] for column in schema.split(",")]

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch.column("id").to_pylist():
                columns = make(block)
                yield pa.RecordBatch.from_pydict({name: columns[name] for name in names})

    num_blocks = -(-config.users // BLOCK_USERS)
    # Users differ in their activity: twice as many tasks as a shuffle has even that out.
    num_tasks = 2 * int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    num_partitions = min(num_blocks, num_tasks)
    blocks = spark.range(0, num_blocks, 1, num_partitions)
    return blocks.mapInArrow(run, schema)
