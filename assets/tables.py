"""Table assets: items, users, what was known of each item on each day, and user sequences."""

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

_SPARK = {"spark", "delta"}


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, pool=MEMORY_POOL, deps=["item_days"])
def items(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """The catalogue: one row per item, with its dense index and first appearance."""
    from pipelines.items import build_items

    lakehouse = platform.lakehouse()
    frame = build_items(platform.source().items(), lakehouse.read(ITEM_DAYS))
    yield table_result(ITEMS, lakehouse.overwrite(ITEMS, frame))


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, pool=MEMORY_POOL, deps=["interactions"])
def users(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Every user that the source or the log names, with profile features where known."""
    from pipelines.users import build_users

    lakehouse = platform.lakehouse()
    source = platform.source()
    frame = build_users(source.users(), lakehouse.read(INTERACTIONS), history=source.history())
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
    deps=["item_days", "items"],
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
    deps=["interactions", "items", "item_days", "item_counters", "percentile_cuts"],
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
