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

Users are simulated in blocks, each from its own random stream, so a row does not depend on the
number of partitions, and the cost per row does not depend on the number of users.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.simulation.block import BLOCK_USERS, simulate_block
from pipelines.sources.simulation.calendar import local_midnight
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import TERMS, FeedConfig
from pipelines.sources.simulation.log_rows import ROW_KINDS, TRUE_ROW, log_rows
from pipelines.sources.simulation.posterior import ACTIONS
from pipelines.sources.simulation.wording import PROFILES, topic_names
from pipelines.tables import RAW_EVENTS

SURFACES = ("home", "digest")
VALIDATION_FRACTION, TEST_FRACTION = 0.8, 0.9
MATURITY_SECONDS = 3_600
_IDS_PER_BLOCK = 10_000_000
_ROW_STREAM = 1  # the random stream of a block's rows, beside that of its users
_ROWS_SCHEMA = """
    impression long, row_kind long, action long, user long, item long, request long, time long,
    arrival long, day long, position long, duration_ms long, dwell_ms long, propensity double,
    is_shuffled boolean, true_probability double, reachable_probability double
"""
_REFERENCES = ("true_probability", "reachable_probability", *(f"without_{t}" for t in TERMS))
_REFERENCES_SCHEMA = (
    "impression long, user long, item long, request long, time double, position long, "
    "clicked boolean, " + ", ".join(f"{name} double" for name in _REFERENCES)
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
    return SourceManifest(
        source="simulated",
        actions=ACTIONS,
        primary_action="click",
        positive_actions=ACTIONS,
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
    numbers = _per_block(spark, config, make=_rows_of(config, days), schema=_ROWS_SCHEMA)
    return _as_raw_events(numbers, config)


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
            start + timedelta(seconds=float(catalogue.created_I[item])),
            f"a{catalogue.author_I[item]:03d}",
            [topics[catalogue.topic_I[item]]],
            catalogue.texts[item],
            int(catalogue.duration_ms_I[item]),
            {"length": "long" if catalogue.duration_ms_I[item] > 35_000 else "short"},
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
        _user_id(F.col("id")).alias("user_id"),
        _name(profile, PROFILES).alias("text"),
        F.create_map(F.lit("region"), F.concat(F.lit("region "), region)).alias("features"),
    )


def references(spark: SparkSession, options: Mapping[str, str]) -> DataFrame:
    """Return every true impression with all reference probabilities, for the fair exam.

    Args:
        spark: The session.
        options: Knobs of `FeedConfig` by name, as text.

    Returns:
        Numbers of impression, user, item and request, seconds since the log's start, position,
        clicked, the true and the reachable probability, and `without_<term>`: the reachable
        probability with that term left out.

    Raises:
        SourceError: If an option is wrong.
    """
    config = _config(None, options)

    def make(block: int) -> dict[str, np.ndarray]:
        columns = simulate_block(config, block)
        return columns | {"impression": _impression_ids(block, np.arange(len(columns["user"])))}

    return _per_block(spark, config, make=make, schema=_REFERENCES_SCHEMA)


def _config(path: str | None, options: Mapping[str, str]) -> FeedConfig:
    if path is not None:
        raise SourceError(f"the simulated feed reads no path, got {path}; leave it out")
    try:
        return FeedConfig.from_options(options)
    except ValueError as error:
        raise SourceError(str(error)) from error


def _impression_ids(block: int, index: np.ndarray) -> np.ndarray:
    return block * _IDS_PER_BLOCK + index


def _rows_of(config: FeedConfig, days: tuple[int, int]) -> Callable[[int], dict[str, np.ndarray]]:
    """Return a function from a block's number to its rows within a range of days."""

    def make(block: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((config.seed, block, _ROW_STREAM))
        rows = log_rows(config, simulate_block(config, block), rng)
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
    names = StructType.fromDDL(schema).fieldNames()

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch.column("id").to_pylist():
                columns = make(block)
                yield pa.RecordBatch.from_pydict({name: columns[name] for name in names})

    num_blocks = -(-config.users // BLOCK_USERS)
    num_partitions = min(num_blocks, 4 * spark.sparkContext.defaultParallelism)
    blocks = spark.range(0, num_blocks, 1, num_partitions)
    return blocks.mapInArrow(run, schema)


def _as_raw_events(numbers: DataFrame, config: FeedConfig) -> DataFrame:
    """Write ids, names and instants for rows of numbers; spoil the ids of planted rows."""
    start_micros = round(local_midnight(config, 0).timestamp() * 1_000_000)
    kind_of = {name: F.col("row_kind") == number for number, name in enumerate(ROW_KINDS)}
    is_action = F.col("action") >= 0
    has_true_id = kind_of[TRUE_ROW] | kind_of["exact_duplicate"] | kind_of["stale_duplicate"]
    impression_id = F.format_string("e%010d", F.col("impression"))
    event_id = F.concat(
        impression_id,
        F.when(is_action, F.concat(F.lit("-"), _name(F.col("action"), ACTIONS))).otherwise(""),
        F.when(has_true_id, F.lit("")).otherwise(F.concat(F.lit("~"), F.col("row_kind"))),
    )
    user_id = _user_id(F.col("user"))
    item_id = F.format_string("i%05d", F.col("item"))
    action = F.when(kind_of["unknown_action"], F.lit("wave")).otherwise(
        _name(F.col("action"), ACTIONS)
    )
    surface = F.when((F.col("user") + F.col("request")) % 5 == 0, F.lit(SURFACES[1]))
    values = {
        "kind": F.when(is_action, F.lit("action")).otherwise("impression"),
        "impression_id": F.when(
            kind_of["orphan_action"], F.concat(impression_id, F.lit("-lost"))
        ).when(is_action | has_true_id, impression_id),
        "request_id": F.format_string("r%d-%d", F.col("user"), F.col("request")),
        "user_id": F.when(~kind_of["missing_user"], user_id),
        "item_id": F.when(kind_of["unknown_item"], F.concat(F.lit("gone-"), item_id)).otherwise(
            item_id
        ),
        "event_time": F.timestamp_micros(F.col("time") + start_micros),
        "arrival_time": F.timestamp_micros(F.col("arrival") + start_micros),
        "actions": F.when(is_action, F.array(action)).otherwise(F.array().cast("array<string>")),
        "dwell_ms": F.when(F.col("dwell_ms") >= 0, F.col("dwell_ms")),
        "duration_ms": F.col("duration_ms"),
        "position": F.when(~is_action, F.col("position")),
        "surface": F.when(~is_action, F.coalesce(surface, F.lit(SURFACES[0]))),
        "propensity": F.when(~is_action, F.col("propensity")),
        "is_shuffled": F.when(~is_action, F.col("is_shuffled")),
        "true_probability": F.when(~is_action, F.col("true_probability")),
        "reachable_probability": F.when(~is_action, F.col("reachable_probability")),
    }
    is_malformed = kind_of["malformed"]
    readable = {name: F.when(~is_malformed, value) for name, value in values.items()}
    torn = F.concat(F.lit('{"id": "'), event_id, F.lit('", "user": "'), user_id, F.lit('", "it'))
    written = readable | {
        "event_id": event_id,
        "event_date": F.date_add(
            F.lit(date.fromisoformat(config.start_date)), F.col("day").cast("int")
        ),
        "raw_text": F.when(is_malformed, torn),
    }
    return numbers.select(
        *(written[name].cast(kind).alias(name) for name, kind in RAW_EVENTS.columns)
    )


def _user_id(number: Column) -> Column:
    return F.format_string("u%07d", number)


def _name(number: Column, names: tuple[str, ...]) -> Column:
    """Return the name at a place of a tuple, null outside of it."""
    return F.get(F.array(*(F.lit(name) for name in names)), number.cast("int"))
