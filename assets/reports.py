"""Report assets: Great Expectations' pages, and one self-contained page for people."""

from collections.abc import Iterator

import dagster as dg

from assets.outcomes import MEMORY_POOL, OWNERS
from infra.platform import Platform
from pipelines.tables import ALL_TABLES

_TABLES = [table.name for table in ALL_TABLES]


@dg.asset(
    group_name="reports",
    kinds={"greatexpectations", "html"},
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=_TABLES,
)
def data_docs(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Great Expectations' Data Docs of each table's newest validations, with their runs."""
    page = platform.quality().build_docs(ui=platform.settings().dagster_url)
    yield dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(str(page))})


@dg.asset(
    group_name="reports",
    kinds={"html"},
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=[
        "data_docs",
        "ranking_evaluation",
        "retrieval_evaluation",
        "optimized_prompt_ranker",
        "semantic_ids",
    ],
)
def report(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """One HTML page: models beside baselines and references, trainings, experts, IDs, tables."""
    from infra.report_content import write_report

    path = write_report(platform.settings(), platform.manifest())
    yield dg.MaterializeResult(
        metadata={"path": dg.MetadataValue.path(str(path)), "bytes": path.stat().st_size}
    )
