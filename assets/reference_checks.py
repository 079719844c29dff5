"""Checks across tables: ids that one refers to are held by the other."""

import dagster as dg

from assets.outcomes import MEMORY_POOL
from infra.expectations import suite
from infra.platform import Platform
from pipelines.references import OF_PROMPTS, OF_SEQUENCES, REFERENCES, Reference


def _references_check(
    name: str, *, asset: str, needs: list[str], references: tuple[Reference, ...], text: str
) -> dg.AssetChecksDefinition:
    """Return the check of an asset that holds the ids of some tables to those of others."""

    @dg.asset_check(
        name=name,
        asset=asset,
        additional_deps=needs,
        blocking=True,
        pool=MEMORY_POOL,
        description=text,
    )
    def references_exist(
        context: dg.AssetCheckExecutionContext, platform: Platform
    ) -> dg.AssetCheckResult:
        return _judged(context, platform, references)

    return references_exist


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


references_of_sequences_exist = _references_check(
    "references_of_sequences_exist",
    asset="sequences",
    needs=[
        "interactions",
        "items",
        "item_versions",
        "users",
        "user_versions",
        "item_counters",
        "sequence_events",
    ],
    references=OF_SEQUENCES,
    text="Items and users of event tables and sequences are in the tables of items and users.",
)
references_of_prompts_exist = _references_check(
    "references_of_prompts_exist",
    asset="member_prompts",
    needs=["items", "users", "item_text", "semantic_ids", "item_prompts"],
    references=OF_PROMPTS,
    text="Items and users of texts, IDs and prompts are in the tables of items and users.",
)
