"""Table assets: items and users with their versions, items day by day, and user sequences."""

from collections.abc import Iterator

import dagster as dg

from assets.day_steps import (
    refresh_item_counters,
    refresh_item_days,
    refresh_percentile_cuts,
    refresh_sequence_events,
)
from assets.outcomes import MEMORY_POOL, OWNERS, corrected, table_result
from assets.partitions import EVENT_PARTITIONS, SINGLE_RUN, day_range
from infra.platform import Platform
from infra.refit_log import load_refits
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEMS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
    SEQUENCES,
    USERS,
)
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS

_SPARK = {"spark", "delta"}


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, pool=MEMORY_POOL, deps=["item_days"])
def item_versions(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Every item as it was described from one change to the next, numbered."""
    from pipelines.items import build_item_versions

    lakehouse, manifest = platform.lakehouse(), platform.manifest()
    catalogue = platform.source().items()
    frame = build_item_versions(catalogue, lakehouse.read(ITEM_DAYS), manifest=manifest)
    yield table_result(ITEM_VERSIONS, lakehouse.overwrite(ITEM_VERSIONS, frame))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_versions", "item_days"],
)
def items(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """The catalogue at the end of the log: one row per item, with index and first appearance."""
    from pipelines.items import build_items

    lakehouse, manifest = platform.lakehouse(), platform.manifest()
    versions = lakehouse.read(ITEM_VERSIONS)
    frame = build_items(versions, lakehouse.read(ITEM_DAYS), manifest=manifest)
    yield table_result(ITEMS, lakehouse.overwrite(ITEMS, frame))


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, pool=MEMORY_POOL, deps=["interactions"])
def user_versions(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Every user that the source or the log names, with their profile from change to change."""
    from pipelines.users import build_user_versions

    lakehouse, source = platform.lakehouse(), platform.source()
    interactions = lakehouse.read(INTERACTIONS)
    frame = build_user_versions(source.users(), interactions, history=source.history())
    yield table_result(USER_VERSIONS, lakehouse.overwrite(USER_VERSIONS, frame))


@dg.asset(
    group_name="tables", kinds=_SPARK, owners=OWNERS, pool=MEMORY_POOL, deps=["user_versions"]
)
def users(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """One row per user, numbered, with their profile at the end of the log."""
    from pipelines.users import build_users

    lakehouse, manifest = platform.lakehouse(), platform.manifest()
    frame = build_users(lakehouse.read(USER_VERSIONS), manifest=manifest)
    yield table_result(USERS, lakehouse.overwrite(USERS, frame))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["interactions"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def item_days(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """What happened to each item on each day, apart by the day on which it arrived."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    commit, others = refresh_item_days(platform.lakehouse(), manifest, start=start, end=end)
    yield table_result(ITEM_DAYS, commit, **corrected(others))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_days"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def item_counters(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Each item's totals as of the days strictly before each day on which it was shown."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    commit, others = refresh_item_counters(platform.lakehouse(), manifest, start=start, end=end)
    yield table_result(ITEM_COUNTERS, commit, **corrected(others))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_days", "item_versions"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def percentile_cuts(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Histograms of a trailing window, strictly before each day, that give percentiles 1..100."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    commit, others = refresh_percentile_cuts(
        platform.lakehouse(),
        manifest,
        start=start,
        end=end,
        refits=load_refits(platform.settings()),
    )
    yield table_result(PERCENTILE_CUTS, commit, **corrected(others))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["interactions", "item_versions", "item_days", "item_counters", "percentile_cuts"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def sequence_events(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Each event with what was known of its item that morning: the daily segments of sequences."""
    manifest = platform.manifest()
    start, end = day_range(context, manifest)
    commit, others = refresh_sequence_events(platform.lakehouse(), manifest, start=start, end=end)
    yield table_result(SEQUENCE_EVENTS, commit, **corrected(others))


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["sequence_events", "items", "users"],
)
def sequences(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Each user's events as aligned arrays, split strictly by time."""
    from pipelines.sequences import SequenceInputs, build_sequences

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    inputs = SequenceInputs(
        events=lakehouse.read(SEQUENCE_EVENTS),
        items=lakehouse.read(ITEMS),
        users=lakehouse.read(USERS),
        history=platform.source().history(),
    )
    frame = build_sequences(inputs, manifest=manifest, max_events=platform.settings().max_events)
    yield table_result(SEQUENCES, lakehouse.overwrite(SEQUENCES, frame))
