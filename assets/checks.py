"""Checks of the tables: Great Expectations' suites of their rows."""

from collections.abc import Iterator

import dagster as dg

from assets.outcomes import MEMORY_POOL
from assets.partitions import checked_days
from infra.expectations import suite
from infra.platform import Platform
from pipelines.contract import Table
from pipelines.tables import ALL_TABLES

CRITICAL, EVERY = "critical_expectations", "all_expectations"


def _table_checks(table: Table) -> dg.AssetChecksDefinition:
    """Return the two checks of a table: the critical rules, which block, and all of them."""

    @dg.multi_asset_check(
        name=f"{table.name}_expectations",
        pool=MEMORY_POOL,
        specs=[
            dg.AssetCheckSpec(
                CRITICAL,
                asset=table.name,
                blocking=True,
                description="Expectations without which nothing downstream may run.",
            ),
            dg.AssetCheckSpec(
                EVERY, asset=table.name, description="Every expectation of the table's suite."
            ),
        ],
    )
    def expectations(
        context: dg.AssetCheckExecutionContext, platform: Platform
    ) -> Iterator[dg.AssetCheckResult]:
        manifest = platform.manifest()
        frame, whole = platform.lakehouse().read(table), True
        if table.partition_by is not None:
            start, end = checked_days(context, manifest)
            frame = frame.where(f"{table.partition_by} BETWEEN DATE'{start}' AND DATE'{end}'")
            whole = (start, end) == (manifest.start_date, manifest.end_date)
        found = platform.quality().validate(
            frame, table, rules=suite(table, manifest, whole=whole), run_id=context.run.run_id
        )
        shown = {
            r.name: f"{'met' if r.success else 'NOT MET'}: {r.observed}" for r in found.results
        }
        yield dg.AssetCheckResult(
            asset_key=table.name,
            check_name=CRITICAL,
            passed=not found.broken,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(f"{r.text} ({r.observed})" for r in found.broken) or None,
        )
        yield dg.AssetCheckResult(
            asset_key=table.name,
            check_name=EVERY,
            passed=not (found.broken or found.warned),
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(f"{r.text} ({r.observed})" for r in found.warned) or None,
            metadata={**shown, "seconds": found.seconds},
        )

    return expectations


table_checks = [_table_checks(table) for table in ALL_TABLES]
