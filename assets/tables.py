"""Table assets: items, users, what was known of each item on each day, and user sequences."""

from collections.abc import Iterator

import dagster as dg

from assets.outcomes import OWNERS, table_result
from assets.partitions import EVENT_PARTITIONS, SINGLE_RUN, day_range
from infra.platform import Platform
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEMS,
    PERCENTILE_CUTS,
    SEQUENCES,
    USERS,
)

_SPARK = {"spark", "delta"}


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, deps=["interactions"])
def items(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """The catalogue: one row per item, with its dense index and first appearance."""
    from pipelines.items import build_items

    lakehouse = platform.lakehouse()
    frame = build_items(platform.source().items(), lakehouse.read(INTERACTIONS))
    yield table_result(ITEMS, lakehouse.overwrite(ITEMS, frame))


@dg.asset(group_name="tables", kinds=_SPARK, owners=OWNERS, deps=["interactions"])
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
    deps=["interactions"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def item_counters(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Each item's totals as of the days strictly before each day on which it was shown."""
    from pipelines.item_counters import count_items

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    start, end = day_range(context, manifest)
    frame = count_items(lakehouse.read(INTERACTIONS), manifest=manifest, start=start, end=end)
    commit = lakehouse.overwrite_partition(ITEM_COUNTERS, frame, start=start, end=end)
    yield table_result(ITEM_COUNTERS, commit)


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    deps=["item_counters", "items", "interactions"],
    partitions_def=EVENT_PARTITIONS,
    backfill_policy=SINGLE_RUN,
)
def percentile_cuts(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Histograms of a trailing window, strictly before each day, that give percentiles 1..100."""
    from pipelines.item_numbers import item_numbers
    from pipelines.percentile_cuts import fit_cuts

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    start, end = day_range(context, manifest)
    counters, items = lakehouse.read(ITEM_COUNTERS), lakehouse.read(ITEMS)
    numbers = item_numbers(counters, counters=counters, items=items, manifest=manifest)
    frame = fit_cuts(numbers, start=start, end=end)
    commit = lakehouse.overwrite_partition(PERCENTILE_CUTS, frame, start=start, end=end)
    yield table_result(PERCENTILE_CUTS, commit)


@dg.asset(
    group_name="tables",
    kinds=_SPARK,
    owners=OWNERS,
    deps=["interactions", "items", "users", "item_counters", "percentile_cuts"],
)
def sequences(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Each user's events as aligned arrays, split strictly by time."""
    from pipelines.event_features import SequenceInputs
    from pipelines.sequences import build_sequences

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    inputs = SequenceInputs(
        interactions=lakehouse.read(INTERACTIONS),
        items=lakehouse.read(ITEMS),
        users=lakehouse.read(USERS),
        counters=lakehouse.read(ITEM_COUNTERS),
        cuts=lakehouse.read(PERCENTILE_CUTS),
        history=platform.source().history(),
    )
    frame = build_sequences(inputs, manifest=manifest, max_events=platform.settings().max_events)
    yield table_result(SEQUENCES, lakehouse.overwrite(SEQUENCES, frame))
