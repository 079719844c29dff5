"""One planted violation: how an expectation is broken, and what must break with it.

A change replaces values of the first row, or takes the rows and returns others. `implied` lists
the expectations that the change breaks as well because the planted one cannot be broken alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.contract import Table
from tests.infra.healthy_rows import Row

Change = dict[str, Any] | Callable[[list[Row]], list[Row]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """Say how one expectation of a table is broken, and what else must break with it."""

    table: Table
    name: str
    change: Change
    implied: tuple[str, ...] = ()


def planted_rows(planted: Planted, healthy: list[Row]) -> list[Row]:
    """Return the healthy rows of a table with the planted violation in them."""
    rows = [dict(row) for row in healthy]
    if callable(planted.change):
        return planted.change(rows)
    return [rows[0] | planted.change, *rows[1:]]


def empty(rows: list[Row]) -> list[Row]:
    return []


def twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[0]]


def missing(table: Table, **implied: tuple[str, ...]) -> list[Planted]:
    """Plant a null in each required column of a table."""
    return [
        Planted(
            table=table,
            name=f"{column}_present",
            change={column: None},
            implied=implied.get(column, ()),
        )
        for column in table.required
    ]
