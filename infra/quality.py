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

from infra.accepted_days import accepted_days
from infra.data_docs import IndexRow, make_self_contained, name_run, write_index
from infra.expectation_store import (
    forget_results,
    new_context,
    new_definition,
    run_identifier,
)
from infra.rules import Rule
from pipelines.contract import Table
from pipelines.day_tables import DAY_TABLES
from pipelines.references import REFERENCES
from pipelines.tables import ALL_TABLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NO_RUN = "outside-dagster"
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
    """Validate tables and keep the newest results of each, one per run, under one folder."""

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

    def build_docs(self, *, ui: str | None = None) -> Path:
        """Write the pages of the kept results, and return the first of them.

        A page that is there already is not made again. The pages need no network: what Great
        Expectations links to is left out or put in.

        Args:
            ui: Address of Dagster's web UI, which runs are linked to; None if it is not known.
        """
        self._docs.mkdir(parents=True, exist_ok=True)
        context = self._context()
        kept = context.validation_results_store.list_keys()
        pages = {key: validation_page(self._docs, key) for key in kept}
        validations = self._docs / "validations"
        for page in set(validations.rglob("*.html")) - set(pages.values()):
            page.unlink()
        shutil.rmtree(self._docs / "expectations", ignore_errors=True)
        missing = [key for key, page in pages.items() if not page.exists()]
        wanted = [*missing, *context.expectations_store.list_keys()]
        context.build_data_docs(resource_identifiers=wanted, build_index=False)
        suites = (self._docs / "expectations").rglob("*.html")
        make_self_contained([*(pages[key] for key in missing), *suites])
        for key, page in pages.items():
            index = "../" * (len(page.relative_to(self._docs).parts) - 1) + "index.html"
            name_run(page, run=key.run_id.run_name, index=index, ui=ui)
        rows = _index_rows(context, pages, self._docs)
        return write_index(self._docs, rows, accepted=accepted_days(self._folder), ui=ui)

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


def validation_page(docs: Path, key: Any) -> Path:
    """Return the page of a result, as Great Expectations names it."""
    *folders, name = key.to_tuple()
    return (docs / "validations").joinpath(*folders, f"{name}.html")


def _index_rows(context: Any, pages: dict[Any, Path], docs: Path) -> list[IndexRow]:
    tables = {table.name: table for table in (*ALL_TABLES, *DAY_TABLES, REFERENCES)}
    order = list(tables)
    newest_first = sorted(pages, key=lambda key: key.run_id.run_time, reverse=True)
    rows = []
    for key in newest_first:
        name = key.expectation_suite_identifier.name
        found = context.validation_results_store.get(key)
        failed = [result.expectation_config for result in found.results if not result.success]
        broken = [config for config in failed if config.severity == "critical"]
        rows.append(
            IndexRow(
                run=key.run_id.run_name,
                table=name,
                row=tables[name].row,
                num_rules=len(found.results),
                num_broken=len(broken),
                num_warned=len(failed) - len(broken),
                checked=f"{key.run_id.run_time:%Y-%m-%d %H:%M}",
                page=str(pages[key].relative_to(docs)),
            )
        )
    return sorted(rows, key=lambda row: order.index(row.table))
