"""Count the ids that one table holds and another lacks."""

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.references import REFERENCES, Reference


def count_missing(
    frames: Mapping[str, DataFrame], *, references: tuple[Reference, ...]
) -> DataFrame:
    """Count, per reference, the values and those that the other table lacks.

    Args:
        frames: The tables of the references, by name.
        references: What to look at.

    Returns:
        Rows of `REFERENCES`.
    """
    rows = [
        _one(frames[each.table.name], frames[each.target.name], reference=each)
        for each in references
    ]
    return reduce(DataFrame.unionAll, rows).select(*REFERENCES.column_names)


def _one(frame: DataFrame, target: DataFrame, *, reference: Reference) -> DataFrame:
    column = reference.column
    kind = dict(reference.table.columns)[column]
    value: Column = F.explode(column) if kind.startswith("array<") else F.col(column)
    values = frame.select(value.alias("value")).distinct()
    if kind.startswith("array<"):
        values = values.where(F.col("value") != 0)
    held = target.select(F.col(column).alias("value"), F.lit(True).alias("is_held")).distinct()
    return (
        values.where(F.col("value").isNotNull())
        .join(held, on="value", how="left")
        .agg(
            F.lit(reference.name).alias("reference"),
            F.count(F.lit(1)).alias("num_values"),
            F.count_if(F.col("is_held").isNull()).alias("num_missing"),
        )
    )
