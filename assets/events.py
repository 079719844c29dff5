"""Event assets: the raw log as it came, and what was kept and rejected of it."""

from collections.abc import Iterator

import dagster as dg

from assets.day_steps import refresh_interactions
from assets.outcomes import MEMORY_POOL, OWNERS, corrected, table_result
from assets.partitions import EVENT_PARTITIONS, SINGLE_RUN, day_range
from infra.platform import Platform
from pipelines.tables import INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS


@dg.asset(
    group_name="events",
    kinds={"spark", "delta"},
    owners=OWNERS,
    pool=MEMORY_POOL,
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def raw_events(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """The source's log in canonical columns: one row per logged row, nothing removed."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    source = platform.source()
    changed = source.changed_columns()
    for title, names in changed.items():
        context.log.warning("%s: %s", title, names)
    frame = source.events(start, end)
    commit = platform.lakehouse().overwrite_partition(RAW_EVENTS, frame, start=start, end=end)
    dropped = source.num_suppressed(start, end)
    yield table_result(
        RAW_EVENTS, commit, source=manifest.source, suppressed_rows=dropped, **changed
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "rejected_events",
            deps=["raw_events"],
            group_name="events",
            kinds={"spark", "delta"},
            owners=OWNERS,
            description="Raw rows that were not kept, each with its payload and a reason.",
        ),
        dg.AssetSpec(
            "interactions",
            deps=["raw_events"],
            group_name="tables",
            kinds={"spark", "delta"},
            owners=OWNERS,
            description="Labelled impressions: what each user was shown and did.",
        ),
    ],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
    pool=MEMORY_POOL,
)
def cleaned_events(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Split the raw rows of the run's days into labelled impressions and rejected rows."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    rejected, interactions = refresh_interactions(
        platform.lakehouse(),
        manifest,
        items=platform.source().items().select("item_id"),
        start=start,
        end=end,
    )
    for table, (commit, others) in ((REJECTED_EVENTS, rejected), (INTERACTIONS, interactions)):
        yield table_result(table, commit, **corrected(others))
