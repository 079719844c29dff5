"""The kinds of rules that a table can be held to, each one Great Expectations expectation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pipelines.contract import Table

_SPACES = " \\t\\r\\n"
_WORD = re.compile(r"'(?:[^'\\]|\\.)*'|[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Describe one expectation.

    Attributes:
        name: Unique within its suite; also the name of the asset check.
        kind: Class of the expectation in Great Expectations.
        text: What is expected, in one sentence; shown in the data docs.
        column: The column looked at; None for the table as a whole.
        derived: SQL expression of that column, None if it is one of the table's own.
        options: The expectation's other arguments.
        critical: Whether a violation blocks what comes after the table.
    """

    name: str
    kind: str
    text: str
    column: str | None = None
    derived: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    critical: bool = True

    def looks_at(self, column: str) -> bool:
        """Return whether the rule's outcome depends on a column of the table."""
        if self.derived is None:
            return self.column == column
        return column in _WORD.findall(self.derived)

    @property
    def breach(self) -> str | None:
        """Return SQL that is true of the rows that break a rule of `between` or `holds`.

        None for a rule of another kind, which no single row breaks or a null breaks.
        """
        if self.kind == "ExpectColumnValuesToBeBetween" and self.derived is None:
            low, high = self.options["min_value"], self.options["max_value"]
            sides = [f"{self.column} < {_literal(low)}"] * (low is not None)
            sides += [f"{self.column} > {_literal(high)}"] * (high is not None)
            return " OR ".join(sides)
        if self.options.get("value_set") == [1] and self.derived is not None:
            return f"{self.derived} <> 1"
        return None


def _literal(value: Any) -> str:
    return f"DATE'{value}'" if isinstance(value, date) else str(value)


def rows_exist() -> Rule:
    """Expect at least one row."""
    return Rule(
        name="rows_exist",
        kind="ExpectTableRowCountToBeBetween",
        text="the table has at least one row",
        options={"min_value": 1},
    )


def present(column: str) -> Rule:
    """Expect no null in a column."""
    return Rule(
        name=f"{column}_present",
        kind="ExpectColumnValuesToNotBeNull",
        text=f"{column} is never missing",
        column=column,
    )


def unique(*columns: str, name: str = "key_unique") -> Rule:
    """Expect no two rows with the same values in some columns; rows with a null are left out."""
    keys = ", ".join(columns)
    complete = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    return Rule(
        name=name,
        kind="ExpectColumnValuesToBeInSet",
        text=f"no two rows share the same {' and '.join(columns)}",
        column=f"rows_per_{name.removesuffix('_unique')}",
        derived=f"CASE WHEN {complete} THEN count(1) OVER (PARTITION BY {keys}) END",
        options={"value_set": [1]},
    )


def between(
    column: str, low: Any, high: Any, *, name: str | None = None, critical: bool = True
) -> Rule:
    """Expect a column's values within bounds, either of which may be None."""
    bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
    return Rule(
        name=name or f"{column}_in_range",
        kind="ExpectColumnValuesToBeBetween",
        text=f"{column} is {' and '.join(bounds)}",
        column=column,
        options={"min_value": low, "max_value": high},
        critical=critical,
    )


def one_of(column: str, values: Sequence[Any], *, critical: bool = True) -> Rule:
    """Expect a column's values from a set."""
    return Rule(
        name=f"{column}_known",
        kind="ExpectColumnValuesToBeInSet",
        text=f"{column} is one of {', '.join(map(str, values))}",
        column=column,
        options={"value_set": list(values)},
        critical=critical,
    )


def holds(name: str, condition: str, text: str, *, critical: bool = True) -> Rule:
    """Expect an SQL condition to be true of every row; a null condition breaks nothing.

    Args:
        name: Name of the rule, and of the derived column that is 1 where it holds.
        condition: SQL over the table's columns.
        text: The condition in words.
        critical: Whether a violation blocks.
    """
    return Rule(
        name=name,
        kind="ExpectColumnValuesToBeInSet",
        text=text,
        column=name,
        derived=f"CAST({condition} AS INT)",
        options={"value_set": [1]},
        critical=critical,
    )


def not_blank(column: str) -> Rule:
    """Expect no text of spaces alone in a column."""
    return holds(
        f"{column}_not_blank",
        f"trim(BOTH '{_SPACES}' FROM {column}) <> ''",
        f"{column} is not blank",
    )


def features_named(column: str) -> Rule:
    """Expect no key or value of a map of texts to be missing or blank."""
    named = " AND ".join(
        f"forall(map_{part}({column}), v -> coalesce(trim(v) <> '', false))"
        for part in ("keys", "values")
    )
    return holds(f"{column}_named", named, f"no key or value of {column} is missing or blank")


def usually_present(column: str, *, share: float) -> Rule:
    """Expect a column in all rows but a share of them; only a warning."""
    return tolerant(
        holds(f"{column}_usually_present", f"{column} IS NOT NULL", f"{column} is not missing"),
        share=share,
    )


def items_between(column: str, low: int | float, high: int | float) -> Rule:
    """Expect every element of an array within bounds, and none null."""
    return holds(
        f"{column}_items_in_range",
        f"forall({column}, v -> coalesce(v >= {low} AND v <= {high}, false))",
        f"every element of {column} is present, at least {low} and at most {high}",
    )


def share_between(name: str, condition: str, low: float, high: float, *, text: str) -> Rule:
    """Expect the share of rows for which a condition is true within bounds; only a warning."""
    return Rule(
        name=name,
        kind="ExpectColumnMeanToBeBetween",
        text=f"{text}, between {low:g} and {high:g}",
        column=name,
        derived=f"CAST({condition} AS DOUBLE)",
        options={"min_value": low, "max_value": high},
        critical=False,
    )


def one_value(column: str, *, name: str, derived: str | None = None, text: str) -> Rule:
    """Expect all rows to agree in a column."""
    return Rule(
        name=name,
        kind="ExpectColumnUniqueValueCountToBeBetween",
        text=text,
        column=column if derived is None else name,
        derived=derived,
        options={"min_value": 0, "max_value": 1},
    )


def tolerant(rule: Rule, *, share: float) -> Rule:
    """Return the rule as a warning that up to a share of the rows may break."""
    return replace(
        rule,
        options={**rule.options, "mostly": 1 - share},
        text=f"{rule.text}, but for {share:.0%} of the rows",
        critical=False,
    )


def contract_rules(table: Table, *, has_unique_key: bool = True) -> tuple[Rule, ...]:
    """Return what a contract says by itself: required columns and the key.

    Args:
        table: The contract.
        has_unique_key: False for a table that keeps duplicates as they came.
    """
    key = (unique(*table.key),) if has_unique_key else ()
    return (*(present(column) for column in table.required), *key)
