"""Hold tables to their expectations with Great Expectations, and show the results as pages.

Every row of the frame that is given is looked at, never a sample: the columns that the rules
need, narrowed to those, are computed once, kept while Great Expectations counts, and dropped.
Results hold counts and shares only: no value of a row, and so no user, reaches a page.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.data_docs import IndexRow, make_self_contained, write_index
from infra.expectation_store import (
    forget_results,
    new_context,
    new_definition,
    run_identifier,
)
from infra.rules import Rule
from pipelines.contract import Table
from pipelines.tables import ALL_TABLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NO_RUN = "outside Dagster"
_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectationResult:
    """Tell how one rule fared.

    Attributes:
        name: The rule's name, unique within the table.
        column: The column looked at, None for the table as a whole.
        text: What was expected.
        success: Whether it holds.
        critical: Whether a violation blocks.
        observed: What was found: a number of rows and their share, or a value; no row's content.
    """

    name: str
    column: str | None
    text: str
    success: bool
    critical: bool
    observed: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TableQuality:
    """Tell how a table fared.

    Attributes:
        table: The table's name.
        results: One result per rule, in the suite's order.
        seconds: Time that the validation took.
    """

    table: str
    results: tuple[ExpectationResult, ...]
    seconds: float

    @property
    def broken(self) -> tuple[ExpectationResult, ...]:
        """Return the results of the critical rules that do not hold."""
        return tuple(result for result in self.results if result.critical and not result.success)

    @property
    def warned(self) -> tuple[ExpectationResult, ...]:
        """Return the results of the other rules that do not hold."""
        broken = (result for result in self.results if not result.success)
        return tuple(result for result in broken if not result.critical)


class QualityGate:
    """Validate tables and keep the newest result of each under one folder."""

    def __init__(self, folder: Path, *, docs: Path) -> None:
        """Choose the folders; Great Expectations is imported at first use.

        Args:
            folder: Where suites and results are kept.
            docs: Where the pages go.
        """
        self._folder = folder
        self._docs = docs
        self._open_context: Any = None
        self._definitions: dict[str, tuple[tuple[Rule, ...], Any]] = {}

    def validate(
        self, frame: "DataFrame", table: Table, *, rules: tuple[Rule, ...], run_id: str = NO_RUN
    ) -> TableQuality:
        """Hold a frame to a table's rules and keep the result for the pages.

        Args:
            frame: The table's rows, all of them or the partitions just written.
            table: The contract.
            rules: The table's suite.
            run_id: Dagster's id of the run that asks; a run has one result per table.

        Returns:
            One result per rule.

        Raises:
            RuntimeError: If a rule could not be evaluated.
        """
        started = time.monotonic()
        definition = self._definition(table, rules)
        forget_results(self._context(), table, run_id=run_id)
        checked = narrowed(frame, rules).persist()
        try:
            found = definition.run(
                batch_parameters={"dataframe": checked},
                result_format=_COUNTS_ONLY,
                run_id=run_identifier(run_id),
            )
        finally:
            checked.unpersist()
        by_name = {result.expectation_config.meta["name"]: result for result in found.results}
        results = tuple(_result(rule, by_name[rule.name]) for rule in rules)
        return TableQuality(table=table.name, results=results, seconds=time.monotonic() - started)

    def build_docs(self) -> Path:
        """Write the pages of the newest results, and return the first of them.

        The pages need no network: what Great Expectations links to is left out or put in.
        """
        shutil.rmtree(self._docs, ignore_errors=True)
        self._docs.mkdir(parents=True)
        context = self._context()
        context.build_data_docs()
        make_self_contained(self._docs)
        return write_index(self._docs, _index_rows(context, self._docs))

    def _definition(self, table: Table, rules: tuple[Rule, ...]) -> Any:
        known, definition = self._definitions.get(table.name, ((), None))
        if known != rules:
            definition = new_definition(self._context(), table, rules)
            self._definitions[table.name] = (rules, definition)
        return definition

    def _context(self) -> Any:
        if self._open_context is None:
            self._open_context = new_context(self._folder, docs=self._docs)
        return self._open_context


def narrowed(frame: "DataFrame", rules: tuple[Rule, ...]) -> "DataFrame":
    """Return only what the rules look at, derived columns computed.

    Args:
        frame: The table's rows.
        rules: The table's suite.
    """
    from pyspark.sql import functions as F

    wanted = {rule.column: rule.derived for rule in rules if rule.column is not None}
    columns = [
        F.col(name) if sql is None else F.expr(sql).alias(name) for name, sql in wanted.items()
    ]
    return frame.select(*columns)


def _result(rule: Rule, found: Any) -> ExpectationResult:
    if found.exception_info.get("raised_exception"):
        message = str(found.exception_info.get("exception_message")).splitlines()[0]
        raise RuntimeError(f"rule {rule.name} could not be evaluated: {message}")
    return ExpectationResult(
        name=rule.name,
        column=rule.column,
        text=rule.text,
        success=bool(found.success),
        critical=rule.critical,
        observed=_observed(found.result),
    )


def _observed(result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        share = result["unexpected_percent"] or 0.0
        return f"{result['unexpected_count']} of {result['element_count']} rows ({share:.3g}%)"
    return str(result.get("observed_value"))


def _index_rows(context: Any, docs: Path) -> list[IndexRow]:
    store = context.validation_results_store
    newest = {key.expectation_suite_identifier.name: key for key in store.list_keys()}
    rows = []
    for table in ALL_TABLES:
        if table.name not in newest:
            continue
        key = newest[table.name]
        found = store.get(key)
        failed = [result.expectation_config for result in found.results if not result.success]
        broken = [config for config in failed if config.severity == "critical"]
        page = next((docs / "validations" / table.name).rglob("*.html"))
        rows.append(
            IndexRow(
                table=table.name,
                row=table.row,
                num_rules=len(found.results),
                num_broken=len(broken),
                num_warned=len(failed) - len(broken),
                checked=f"{key.run_id.run_time:%Y-%m-%d %H:%M}",
                page=str(page.relative_to(docs)),
            )
        )
    return rows
