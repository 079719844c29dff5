"""What an asset says about itself: owners, metadata of a table write, and why it was skipped."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from infra.platform import Platform
from pipelines.contract import Table

if TYPE_CHECKING:
    from infra.changed_days import Correction
    from infra.lakehouse import Commit
    from infra.table_history import TableState

OWNERS = ["team:ranklake"]
# Every step belongs to this pool of one slot: a second run waits until the first has ended.
MEMORY_POOL = "memory"


def table_metadata(table: Table, commit: "Commit") -> dict[str, Any]:
    """Return the metadata that every table asset shows after a write.

    Args:
        table: Contract of the table.
        commit: What the lakehouse reported of the write.
    """
    columns = [dg.TableColumn(name, type=kind) for name, kind in table.columns]
    return {
        "dagster/row_count": commit.num_rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "delta_version": commit.version,
        "bytes": commit.num_bytes,
        "row": table.row,
        "key": ", ".join(table.key),
        **({} if commit.state is None else _state_metadata(commit.state)),
    }


def _state_metadata(state: "TableState") -> dict[str, Any]:
    """Return the size of the whole table and a list of its last operations."""
    lines = [
        f"| {each.version} | {each.when:%Y-%m-%d %H:%M:%S} | {each.name} | {each.rows:,} "
        f"| {each.bytes:,} |"
        for each in state.operations
    ]
    head = ["| version | when (UTC) | operation | rows | bytes |", "|---|---|---|---|---|"]
    return {
        "table_rows": state.rows,
        "table_files": state.files,
        "table_bytes": state.bytes,
        "history": dg.MetadataValue.md("\n".join([*head, *lines])),
    }


def table_result(table: Table, commit: "Commit", **extra: Any) -> dg.MaterializeResult:
    """Return a table's materialisation with its metadata and any extra entries."""
    return dg.MaterializeResult(
        asset_key=table.name, metadata={**table_metadata(table, commit), **extra}
    )


def corrected(others: "Correction") -> dict[str, str]:
    """Say which days beside those of the run were written again; nothing where none was."""
    days = others.days
    return {"corrected_days": f"{len(days)}, {days[0]} to {days[-1]}"} if days else {}


def is_skipped(context: dg.AssetExecutionContext, platform: Platform) -> bool:
    """Say whether the source cannot feed the asset; if so, record the reason on it.

    An asset that returns without yielding is shown as skipped, and so is all that needs it.
    """
    name = context.asset_key.to_user_string()
    reason = platform.manifest().cannot_feed.get(name)
    if reason is None:
        return False
    context.log.warning("%s is skipped: %s", name, reason)
    context.log_event(
        dg.AssetObservation(asset_key=context.asset_key, metadata={"skipped": reason})
    )
    return True


def numeric_metadata(
    figures: Mapping[str, float | int | str | None],
) -> dict[str, dg.MetadataValue]:
    """Wrap figures as Dagster metadata; what is no finite number is shown as text."""
    wrapped: dict[str, dg.MetadataValue] = {}
    for name, value in figures.items():
        if value is None:
            wrapped[name] = dg.MetadataValue.text("could not be measured")
        elif isinstance(value, bool | str):
            wrapped[name] = dg.MetadataValue.text(str(value))
        elif isinstance(value, int):
            wrapped[name] = dg.MetadataValue.int(value)
        elif value == value and abs(value) != float("inf"):
            wrapped[name] = dg.MetadataValue.float(float(value))
        else:
            wrapped[name] = dg.MetadataValue.text(str(value))
    return wrapped
