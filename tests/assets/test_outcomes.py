"""What an asset says about itself."""

from datetime import UTC, datetime

import dagster as dg

from assets.outcomes import numeric_metadata, table_metadata
from infra.lakehouse import Commit
from infra.table_history import Operation, TableState
from pipelines.tables import ITEMS


def test_figures_that_are_no_finite_number_are_shown_as_text() -> None:
    found = numeric_metadata({"auc": None, "ne": 0.5, "rows": 3, "rate": float("nan"), "ok": True})
    assert found["auc"] == dg.MetadataValue.text("could not be measured")
    assert found["ne"] == dg.MetadataValue.float(0.5)
    assert found["rows"] == dg.MetadataValue.int(3)
    assert found["rate"] == dg.MetadataValue.text("nan")
    assert found["ok"] == dg.MetadataValue.text("True")


def test_table_shows_its_size_and_its_last_operations() -> None:
    write = Operation(
        version=4, when=datetime(2026, 5, 1, 9, tzinfo=UTC), name="WRITE", rows=1200, bytes=34
    )
    state = TableState(
        version=4, rows=5000, files=3, bytes=99, without_statistics=0, operations=(write,)
    )
    found = table_metadata(ITEMS, Commit(version=4, num_rows=1200, num_bytes=34, state=state))
    assert (found["dagster/row_count"], found["table_rows"], found["table_files"]) == (
        1200,
        5000,
        3,
    )
    assert "| 4 | 2026-05-01 09:00:00 | WRITE | 1,200 | 34 |" in found["history"].value
