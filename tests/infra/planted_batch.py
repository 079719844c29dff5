"""Many planted violations of one table in one validation.

Each case is a copy of the healthy table with its violation, told apart by the column `planted`.
A rule on rows becomes one expectation over all cases that must not break it, and one per case
that must; a rule on a whole column becomes one per case. So one run of Great Expectations says
of every rule and every case whether the rule is red, as single runs would.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.rules import Rule
from pipelines.contract import Table
from tests.infra.healthy_rows import Row
from tests.infra.planted import Planted, planted_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_NOT_NULL = "ExpectColumnValuesToNotBeNull"
_ROWS = (_NOT_NULL, "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeBetween")
_COUNT = "ExpectTableRowCountToBeBetween"


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Hold the expectations of one validation of many cases.

    Attributes:
        rules: One per pair of a rule and the cases that it looks at.
        met: Name of each to whether it must hold.
    """

    rules: tuple[Rule, ...]
    met: dict[str, bool]


def batch_frame(
    spark: "SparkSession", table: Table, cases: Sequence[Planted], *, healthy: list[Row]
) -> "DataFrame":
    """Return the rows of all cases; no case may be without rows."""
    from pyspark.sql.types import IntegerType, StructField, StructType

    rows = []
    for number, case in enumerate(cases):
        planted = planted_rows(case, healthy)
        assert planted, f"{case.name} leaves no rows to batch"
        rows += [(*(row.get(n) for n in table.column_names), number) for row in planted]
    schema = StructType([*table.schema.fields, StructField("planted", IntegerType())])
    return spark.createDataFrame(rows, schema).coalesce(1)


def batch_of(rules: Sequence[Rule], cases: Sequence[Planted]) -> Batch:
    """Return the expectations that tell each rule's outcome for each case."""
    made: list[tuple[Rule, bool]] = []
    for rule in rules:
        breakers = [i for i, c in enumerate(cases) if rule.name in (c.name, *c.implied)]
        if rule.kind in _ROWS:
            others = f"NOT planted IN ({', '.join(map(str, [-1, *breakers]))})"
            strict = {name: value for name, value in rule.options.items() if name != "mostly"}
            made.append((_only(replace(rule, options=strict), "others", others), True))
            made += [(_only(rule, cases[i].name, f"planted = {i}"), False) for i in breakers]
        elif rule.kind != _COUNT:
            made += [
                (_only(rule, case.name, f"planted = {i}"), i not in breakers)
                for i, case in enumerate(cases)
            ]
    return Batch(rules=tuple(rule for rule, _ in made), met={rule.name: met for rule, met in made})


def _only(rule: Rule, label: str, where: str) -> Rule:
    """Return the rule with every row but those of a condition made harmless."""
    value = rule.column if rule.derived is None else _by_case(rule.derived)
    if rule.kind == _NOT_NULL:
        derived = f"CASE WHEN {where} AND {value} IS NULL THEN NULL ELSE 1 END"
    else:
        derived = f"CASE WHEN {where} THEN {value} END"
    name = f"{rule.name}__{label}"
    return replace(rule, name=name, column=name, derived=derived)


def _by_case(sql: str) -> str:
    """Keep the windows of an expression within one case."""
    within = sql.replace("PARTITION BY ", "PARTITION BY planted, ")
    within = re.sub(r"OVER \(\s*\)", "OVER (PARTITION BY planted)", within)
    assert within.count("OVER (") == within.count("OVER (PARTITION BY planted")
    return within
