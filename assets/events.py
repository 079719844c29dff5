"""Event assets: the raw log as it came, and what was kept and rejected of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.outcomes import OWNERS, table_result
from assets.partitions import EVENT_PARTITIONS, SINGLE_RUN, day_range
from infra.errors import UserError
from infra.platform import Platform
from pipelines.tables import INTERACTIONS, RAW_EVENTS, REJECTED_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dg.asset(
    group_name="events",
    kinds={"spark", "delta"},
    owners=OWNERS,
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
    yield table_result(RAW_EVENTS, commit, source=manifest.source, **changed)


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
)
def cleaned_events(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Split the raw rows of the run's days into labelled impressions and rejected rows."""
    from pipelines.cleaning import judge_raw, kept_rows, rejected_rows
    from pipelines.interactions import label_impressions

    manifest, lakehouse = platform.manifest(), platform.lakehouse()
    start, end = day_range(context, manifest)
    days = f"event_date BETWEEN DATE'{start}' AND DATE'{end}'"
    raw = lakehouse.read(RAW_EVENTS).where(days)
    items = platform.source().items().select("item_id")
    judged = judge_raw(raw, items=items, manifest=manifest).persist()
    if (start, end) == (manifest.start_date, manifest.end_date):
        refuse_if_nothing_is_kept(rejected_rows(judged), kept_rows(judged))
    commit = lakehouse.overwrite_partition(
        REJECTED_EVENTS, rejected_rows(judged), start=start, end=end
    )
    yield table_result(REJECTED_EVENTS, commit)
    labelled = label_impressions(kept_rows(judged), manifest=manifest)
    commit = lakehouse.overwrite_partition(INTERACTIONS, labelled, start=start, end=end)
    judged.unpersist()
    yield table_result(INTERACTIONS, commit)


def refuse_if_nothing_is_kept(rejected: "DataFrame", kept: "DataFrame") -> None:
    """Stop before anything is written where every row of the whole log is rejected.

    Raises:
        UserError: Naming the most frequent reasons.
    """
    if not kept.isEmpty():
        return
    counts = sorted(rejected.groupBy("reason").count().collect(), key=lambda row: -row["count"])
    shown = ", ".join(f"{row['reason']} {row['count']:,}" for row in counts[:3]) or "it is empty"
    raise UserError(
        f"no row of the log can be kept ({shown})",
        remedy="compare the log with what the source expects, or correct the mapping",
    )
