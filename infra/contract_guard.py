"""Hold a frame to its table's contract before and while it is written.

Names and types are compared without running anything. Nulls in required columns and rows of
another day stop the write itself, in the pass that computes the rows, so that the frame is not
computed twice. The rows are counted only for the message of a write that failed.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructField, StructType

from infra.commit_lock import is_remote
from pipelines.contract import Table

VIOLATION = "ranklake contract violation"
# A value per type that arrays of tables hardly ever hold.
_UNLIKELY = {
    "int": -1_987_654_321,
    "bigint": -1_987_654_321,
    "float": -0.198765,
    "double": -0.198765,
    "string": "\x01",
    "timestamp": "1901-02-03 04:05:06.789",
}


def conform(frame: DataFrame, table: Table) -> DataFrame:
    """Return the frame with its columns in contract order.

    Raises:
        ValueError: If a column is missing, unknown or of another type.
    """
    found = _types(frame.schema)
    wanted = _types(table.schema)
    problems = [f"lacks {name}" for name in table.column_names if name not in found]
    problems += [
        f"has the unknown column {name}" for name in found if name not in table.column_names
    ]
    problems += [
        f"has {name} as {found[name]} instead of {kind}"
        for name, kind in wanted.items()
        if found.get(name, kind) != kind
    ]
    if len(frame.columns) != len(found):
        problems.append("has two columns of one name")
    if problems:
        raise ValueError(f"frame for table {table.name} {', '.join(problems)}")
    if is_remote(frame.sparkSession):
        # Spark Connect names the collation in the strings of a Python function's rows, and a
        # table with such a type cannot be read without Spark; a cast by name takes it away.
        return frame.select(*(F.col(name).cast(kind).alias(name) for name, kind in wanted.items()))
    return frame.select(*table.column_names)


def guard(frame: DataFrame, table: Table, *, inside: Column | None = None) -> DataFrame:
    """Return the frame with checks that end the job at the first row that breaks the contract.

    Args:
        frame: A frame in contract order.
        table: The contract.
        inside: Condition on the partition column that each row must meet.
    """
    breach = F.raise_error(F.lit(VIOLATION))
    columns = []
    for name in table.column_names:
        column = F.col(name)
        checks = [column.isNull()] if name in _never_null(table) else []
        if inside is not None and name == table.partition_by:
            checks.append(~inside)
        for check in checks:
            column = F.when(check, breach).otherwise(column)
        columns.append(column.alias(name))
    return frame.select(*columns)


def describe_breach(frame: DataFrame, table: Table, *, inside: Column | None = None) -> str:
    """Count what is wrong with a frame and say it in one line; empty if nothing is."""
    counts = {f"null {name}": F.count_if(F.col(name).isNull()) for name in _never_null(table)}
    if inside is not None:
        counts[f"{table.partition_by} outside the written range"] = F.count_if(~inside)
    if not counts:
        return ""
    row = frame.agg(*(count.alias(label) for label, count in counts.items())).first()
    found = row.asDict() if row is not None else {}
    parts = [f"{number} rows with {label}" for label, number in found.items() if number]
    return f"frame for table {table.name} has {', '.join(parts)}" if parts else ""


def repeated_keys(frame: DataFrame, table: Table) -> int:
    """Count the keys that more than one row has."""
    return frame.groupBy(*table.key).count().where(F.col("count") > 1).count()


def fingerprint(frame: DataFrame, table: Table) -> str:
    """Return a value that is equal for two frames of the same rows in any order.

    Sums a 64-bit hash per row, so that different rows agree with a chance of about 2^-64. Nulls
    are hashed on their own because Spark's hash skips them.
    """
    total = F.sum(row_hash(table))
    row = frame.agg(F.count(F.lit(1)).alias("rows"), total.alias("total")).first()
    schema = ",".join(f"{name}:{kind}" for name, kind in _types(table.schema).items())
    return f"{row['rows']}|{row['total']}|{schema}" if row is not None else schema


def row_hash(table: Table) -> Column:
    """Return a row's 64-bit hash as a decimal, so that hashes can be summed."""
    parts = [part for field in table.schema.fields for part in _hashable(field)]
    return F.xxhash64(*parts).cast("decimal(20,0)")


def _hashable(field: StructField) -> list[Column]:
    column = F.col(field.name)
    if isinstance(field.dataType, MapType):
        return [column.isNull(), F.array_sort(F.map_entries(column))]
    if isinstance(field.dataType, ArrayType):
        return [column.isNull(), column, _places_of_nulls(column, field.dataType)]
    return [column.isNull(), column]


def _places_of_nulls(column: Column, kind: ArrayType) -> Column:
    """Return which elements of an array are null; null where none is.

    A look for a value that is hardly ever there is a tight loop, and false only where no element
    is null; where it is anything else, each element is looked at by itself.
    """
    each = F.transform(column, lambda item: item.isNull())
    if (unlikely := _UNLIKELY.get(kind.elementType.simpleString())) is None:
        return each
    found = F.array_contains(column, F.lit(unlikely).cast(kind.elementType))
    return F.when(~found.eqNullSafe(F.lit(False)), each)


def _never_null(table: Table) -> tuple[str, ...]:
    partition = (table.partition_by,) if table.partition_by else ()
    return tuple(name for name in table.column_names if name in (*table.required, *partition))


def _types(schema: StructType) -> dict[str, str]:
    return {field.name: field.dataType.simpleString() for field in schema.fields}
