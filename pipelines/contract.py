"""What one table's contract is; the contracts themselves are in tables.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql.types import DataType, StructType


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Describe one Delta table.

    Attributes:
        name: Name of the table and of its folder in the lake.
        group: Dagster group and lake sub-folder.
        row: What one row is, in one sentence.
        columns: Ordered (name, Spark SQL type) pairs; the schema.
        key: Columns that identify a row.
        partition_by: Physical partition column, or None for an unpartitioned table.
        required: Columns that are never null.
        version: Number of the contract, raised by one with every change of columns, key or
            partition column; each step needs a function in migrations.py.
    """

    name: str
    group: str
    row: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    partition_by: str | None = None
    required: tuple[str, ...] = ()
    version: int = 1

    @property
    def schema(self) -> "StructType":
        """Return the Spark schema, fields in contract order (all nullable)."""
        from pyspark.sql.types import StructField, StructType

        return StructType([StructField(n, _spark_type(kind), True) for n, kind in self.columns])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return the column names in contract order."""
        return tuple(name for name, _ in self.columns)


def _spark_type(name: str) -> "DataType":
    """Return the Spark type of a name above; `fromDDL` would need a running JVM."""
    from pyspark.sql import types

    if name.startswith("array<"):
        return types.ArrayType(_spark_type(name[len("array<") : -1]))
    if name.startswith("map<"):
        key, value = name[len("map<") : -1].split(",")
        return types.MapType(_spark_type(key), _spark_type(value))
    scalar = {
        "string": types.StringType,
        "int": types.IntegerType,
        "bigint": types.LongType,
        "double": types.DoubleType,
        "float": types.FloatType,
        "timestamp": types.TimestampType,
        "date": types.DateType,
        "boolean": types.BooleanType,
    }
    return scalar[name]()
