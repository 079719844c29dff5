"""From a block's rows of numbers to raw events: ids, names, instants, and torn text."""

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.sources.simulation.calendar import local_midnight
from pipelines.sources.simulation.config import FeedConfig
from pipelines.sources.simulation.log_rows import ROW_KINDS, TRUE_ROW
from pipelines.sources.simulation.posterior import ACTIONS
from pipelines.tables import RAW_EVENTS

SURFACES = ("home", "digest")
ROWS_SCHEMA = """
    impression long, row_kind long, action long, user long, item long, request long, time long,
    arrival long, day long, position long, duration_ms long, dwell_ms long, propensity double,
    is_shuffled boolean, true_probability double, reachable_probability double
"""


def as_raw_events(numbers: DataFrame, *, config: FeedConfig) -> DataFrame:
    """Write ids, names and instants for rows of numbers, and spoil those of planted rows.

    Args:
        numbers: Columns of `ROWS_SCHEMA`, as `log_rows` makes them.
        config: The feed's knobs.

    Returns:
        Rows of `RAW_EVENTS`.
    """
    start_micros = round(local_midnight(config, 0).timestamp() * 1_000_000)
    kind_of = {name: F.col("row_kind") == number for number, name in enumerate(ROW_KINDS)}
    is_action = F.col("action") >= 0
    has_true_id = kind_of[TRUE_ROW] | kind_of["exact_duplicate"] | kind_of["stale_duplicate"]
    impression_id = F.format_string("e%010d", F.col("impression"))
    event_id = F.concat(
        impression_id,
        F.when(is_action, F.concat(F.lit("-"), name_at(F.col("action"), ACTIONS))).otherwise(""),
        F.when(has_true_id, F.lit("")).otherwise(F.concat(F.lit("~"), F.col("row_kind"))),
    )
    user, item_id = user_id(F.col("user")), F.format_string("i%05d", F.col("item"))
    action = F.when(kind_of["unknown_action"], F.lit("wave")).otherwise(
        name_at(F.col("action"), ACTIONS)
    )
    surface = F.when((F.col("user") + F.col("request")) % 5 == 0, F.lit(SURFACES[1]))
    values = {
        "kind": F.when(is_action, F.lit("action")).otherwise("impression"),
        "impression_id": F.when(kind_of["orphan_action"], F.concat(impression_id, F.lit("-lost")))
        .when(is_action | has_true_id, impression_id)
        .otherwise(event_id),
        "request_id": F.format_string("r%d-%d", F.col("user"), F.col("request")),
        "user_id": F.when(~kind_of["missing_user"], user),
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
    torn = F.concat(F.lit('{"id": "'), event_id, F.lit('", "user": "'), user, F.lit('", "it'))
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


def user_id(number: Column) -> Column:
    """Return the name of a user's number."""
    return F.format_string("u%07d", number)


def name_at(number: Column, names: tuple[str, ...]) -> Column:
    """Return the name at a place of a tuple, null outside of it."""
    return F.get(F.array(*(F.lit(name) for name in names)), number.cast("int"))
