"""Checks across tables: ids that one refers to are held by the other."""

import dagster as dg

from assets.outcomes import MEMORY_POOL
from infra.expectations import suite
from infra.platform import Platform
from pipelines.references import OF_PROMPTS, OF_SEQUENCES, REFERENCES, Reference


@dg.asset_check(
    asset="sequences",
    additional_deps=[
        "interactions",
        "items",
        "item_versions",
        "users",
        "user_versions",
        "item_counters",
        "sequence_events",
    ],
    blocking=True,
    pool=MEMORY_POOL,
)
def references_of_sequences_exist(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> dg.AssetCheckResult:
    """Items and users of the event tables and sequences are in the tables of items and users."""
    return _judged(context, platform, OF_SEQUENCES)


@dg.asset_check(
    asset="member_prompts",
    additional_deps=["items", "users", "item_text", "semantic_ids", "item_prompts"],
    blocking=True,
    pool=MEMORY_POOL,
)
def references_of_prompts_exist(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> dg.AssetCheckResult:
    """Items and users of texts, IDs and prompts are in the tables of items and users."""
    return _judged(context, platform, OF_PROMPTS)


def _judged(
    context: dg.AssetCheckExecutionContext, platform: Platform, references: tuple[Reference, ...]
) -> dg.AssetCheckResult:
    from pipelines.missing_references import count_missing

    lakehouse = platform.lakehouse()
    named = {each.name: each for ref in references for each in (ref.table, ref.target)}
    frames = {name: lakehouse.read(table) for name, table in named.items()}
    counts = count_missing(frames, references=references).coalesce(1).persist()
    try:
        rules = suite(REFERENCES, platform.manifest())
        found = platform.quality().validate(
            counts, REFERENCES, rules=rules, run_id=context.run.run_id
        )
        rows = {row.reference: (row.num_missing, row.num_values) for row in counts.collect()}
    finally:
        counts.unpersist()
    lost = {name: f"{few:,} of {all_:,} are not there" for name, (few, all_) in rows.items() if few}
    return dg.AssetCheckResult(
        passed=not found.broken,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{name}: {text}" for name, text in lost.items()) or None,
        metadata={name: f"{all_:,} values, {few:,} missing" for name, (few, all_) in rows.items()}
        | {"seconds": found.seconds},
    )
