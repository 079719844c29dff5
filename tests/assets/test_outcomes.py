"""What an asset says about itself."""

import dagster as dg

from assets.outcomes import numeric_metadata


def test_figures_that_are_no_finite_number_are_shown_as_text() -> None:
    found = numeric_metadata({"auc": None, "ne": 0.5, "rows": 3, "rate": float("nan"), "ok": True})
    assert found["auc"] == dg.MetadataValue.text("could not be measured")
    assert found["ne"] == dg.MetadataValue.float(0.5)
    assert found["rows"] == dg.MetadataValue.int(3)
    assert found["rate"] == dg.MetadataValue.text("nan")
    assert found["ok"] == dg.MetadataValue.text("True")
