"""Align KuaiRand's lists of liked and long-watched videos with the list of watched ones."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def marks(watched: Column, chosen: Column, *, bit: int) -> Column:
    """Mark the watches that a list without places speaks of.

    `chosen` keeps the order of `watched` and may reach further back. Each of its entries, from
    the last to the first, is matched to the latest watch that keeps the order, which is the
    longest possible match.

    Args:
        watched: Array of videos, oldest first.
        chosen: Array of videos, oldest first.
        bit: What to write at a matched place.

    Returns:
        Array of integers as long as `watched`: `bit` or 0.
    """
    start = F.struct(F.size(chosen).alias("left"), F.array().cast("array<int>").alias("marks"))

    def step(state: Column, item: Column) -> Column:
        candidate = F.get(chosen, state["left"] - 1)
        is_match = F.coalesce(candidate == item, F.lit(False))
        mark = F.array(F.when(is_match, F.lit(bit)).otherwise(F.lit(0)))
        left = state["left"] - is_match.cast("int")
        return F.struct(left.alias("left"), F.concat(mark, state["marks"]).alias("marks"))

    return F.aggregate(F.reverse(watched), start, step)["marks"]
