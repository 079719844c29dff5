"""Checks of the tables: Great Expectations' suites, and that no raw row is lost."""

from collections.abc import Iterator

import dagster as dg

from infra.platform import Platform
from pipelines.contract import Table
from pipelines.tables import ALL_TABLES, INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS

CRITICAL, EVERY = "critical_expectations", "all_expectations"


def _table_checks(table: Table) -> dg.AssetChecksDefinition:
    """Return the two checks of a table: the critical rules, which block, and all of them."""

    @dg.multi_asset_check(
        name=f"{table.name}_expectations",
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
    def expectations(platform: Platform) -> Iterator[dg.AssetCheckResult]:
        found = platform.quality().validate(
            platform.lakehouse().read(table), table, manifest=platform.manifest()
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


@dg.asset_check(asset="interactions", additional_deps=["rejected_events"], blocking=True)
def every_raw_row_is_kept_or_rejected(platform: Platform) -> dg.AssetCheckResult:
    """Raw rows equal the rows merged into interactions plus the rejected ones, on every day."""
    from pipelines.row_sums import row_sums

    lakehouse = platform.lakehouse()
    sums = row_sums(
        lakehouse.read(RAW_EVENTS),
        rejected=lakehouse.read(REJECTED_EVENTS),
        interactions=lakehouse.read(INTERACTIONS),
    ).collect()
    lost = [str(day.event_date) for day in sums if day.raw != day.rejected + day.kept]
    totals = {name: sum(day[name] for day in sums) for name in ("raw", "rejected", "kept")}
    return dg.AssetCheckResult(
        passed=not lost,
        metadata={**totals, "unbalanced_days": ", ".join(lost) or "none"},
    )
