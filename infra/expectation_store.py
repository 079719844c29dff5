"""Great Expectations' side of the rules: its context, its suites and its stored results."""

import logging
import os
import sys
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from infra.rules import Rule
from pipelines.contract import Table

_SOURCE = "lake"
KEPT_RUNS = 20  # results kept of each table, one per run
_NOISY = ("great_expectations", "posthog")


def new_context(folder: Path, *, docs: Path) -> Any:
    """Return a context that keeps suites and results in a folder and tells nobody of it.

    Args:
        folder: Where suites and results are kept.
        docs: Where pages go.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    _name_main_module()
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        FilesystemStoreBackendDefaults,
        ProgressBarsConfig,
    )

    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=FilesystemStoreBackendDefaults(root_directory=str(folder)),
        data_docs_sites={"ranklake": site},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _name_main_module() -> None:
    """Say what the main module is, where the process that started this one did not.

    Great Expectations imports PySpark's Connect part, which takes a process without a main file,
    as Dagster's run processes are, for a doctest and ends it.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is None and not hasattr(main, "__file__"):
        main.__spec__ = ModuleSpec("__main__", None)


def new_definition(context: Any, table: Table, rules: tuple[Rule, ...]) -> Any:
    """Return the validation of a table, with its suite as the rules are now."""
    import great_expectations as gx

    wanted = gx.ExpectationSuite(
        table.name,
        expectations=[_expectation(rule) for rule in rules],
        meta={"row": table.row},
    )
    stored = context.suites.add_or_update(wanted)
    definition = gx.ValidationDefinition(
        name=table.name, data=_all_rows(context, table), suite=stored
    )
    return context.validation_definitions.add_or_update(definition)


def _all_rows(context: Any, table: Table) -> Any:
    if _SOURCE in context.data_sources.all():
        source = context.data_sources.get(_SOURCE)
    else:
        source = context.data_sources.add_spark(_SOURCE, persist=False)
    if table.name in source.get_asset_names():
        source.delete_asset(table.name)
    asset = source.add_dataframe_asset(table.name)
    return asset.add_batch_definition_whole_dataframe("all rows")


def _expectation(rule: Rule) -> Any:
    from great_expectations import expectations

    from infra.counted_expectations import KINDS

    column = {} if rule.column is None else {"column": rule.column}
    kind = KINDS.get(rule.kind) or getattr(expectations, rule.kind)
    return kind(
        **column,
        **rule.options,
        description=rule.text,
        severity="critical" if rule.critical else "warning",
        meta={"name": rule.name},
    )


def forget_results(context: Any, table: Table, *, run_id: str) -> None:
    """Remove what a new result of a table replaces: the same run's, and the oldest of many.

    Args:
        context: Great Expectations' context.
        table: The contract.
        run_id: The run whose result is about to be stored.
    """
    store = context.validation_results_store
    older = []
    for key in store.list_keys():
        if key.expectation_suite_identifier.name != table.name:
            continue
        if key.run_id.run_name == run_id:
            store.remove_key(key)
        else:
            older.append(key)
    older.sort(key=lambda key: key.run_id.run_time, reverse=True)
    for key in older[KEPT_RUNS - 1 :]:
        store.remove_key(key)


def run_identifier(run_id: str) -> Any:
    """Return the name under which Great Expectations keeps a run's results."""
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name=run_id, run_time=datetime.now(UTC))
