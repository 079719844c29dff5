"""Expectations of references: whatever a table names is there."""

from dataclasses import replace

from infra.rules import Rule, between
from pipelines.sources.manifest import SourceManifest


def reference_rules(_manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of the references between tables."""
    return (
        between("num_values", 0, None),
        replace(
            between("num_missing", None, 0),
            text="every id that a table refers to is in the table that holds such ids",
        ),
    )
