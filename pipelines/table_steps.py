"""The steps that carry tables from one contract to the next; migrations.py says which is which."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.sequences import SESSION_GAP


def drop_is_mature(interactions: DataFrame) -> DataFrame:
    """Carry interactions from 1 to 2: maturity is asked when tables are read (maturity.py)."""
    return interactions.drop("is_mature")


def add_later_days(interactions: DataFrame) -> DataFrame:
    """Carry interactions from 2 to 3: until then no action was filed after its impression's day."""
    return interactions.withColumn("later_days", F.lit(None).cast("array<int>"))


def add_session_index(sequences: DataFrame) -> DataFrame:
    """Carry sequences from 1 to 2: count the sessions of each row from the times it holds."""

    def begins(time: Column, place: Column) -> Column:
        previous = F.get("event_time", place - 1)
        is_near = F.unix_micros(time) - F.unix_micros(previous) <= F.lit(
            round(SESSION_GAP.total_seconds() * 1_000_000)
        )
        new = F.when(previous.isNotNull() & is_near, F.lit(0)).otherwise(F.lit(1))
        return F.when(time.isNull(), F.lit(0)).otherwise(new)

    def with_next(counts: Column, step: Column) -> Column:
        last = F.coalesce(F.element_at(counts, -1), F.lit(0))
        return F.concat(counts, F.array(last + step))

    steps = F.transform("event_time", begins)
    none = F.array(F.lit(0))  # a first element to count from, taken off again
    counted = F.aggregate(steps, none, with_next)
    return sequences.withColumn("session_index", F.slice(counted, 2, F.size(steps)))


def add_logging_policy(segments: DataFrame) -> DataFrame:
    """Carry sequence_events from 1 to 2: the propensity and the shuffled mark are not known here.

    The interactions know them; the segments do once their days are built again.
    """
    return segments.withColumns(
        {
            "propensity": F.lit(None).cast("double"),
            "is_shuffled": F.lit(None).cast("boolean"),
        }
    )


def add_logging_policy_lists(sequences: DataFrame) -> DataFrame:
    """Carry sequences from 2 to 3: the two of `add_logging_policy`, unknown for each event."""
    unknown = F.transform("item_index", lambda _: F.lit(None))
    return sequences.withColumns(
        {
            "propensity": unknown.cast("array<double>"),
            "is_shuffled": unknown.cast("array<boolean>"),
        }
    )
