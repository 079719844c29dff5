"""Inference assets: the exact index, and the sparse model with its expert load made even."""

from collections.abc import Iterator

import dagster as dg

from assets.outcomes import MEMORY_POOL, OWNERS, is_skipped, numeric_metadata
from infra.platform import Platform
from infra.results import save_result

_KINDS = {"pytorch", "mlflow"}


@dg.asset(
    group_name="inference",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["retriever", "item_prompts"],
    output_required=False,
)
def retrieval_index(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """The catalogue's embeddings as the test split begins, searched exactly."""
    if is_skipped(context, platform):
        return
    import torch

    from assets.model_data import PROMPT_TABLES, pinned, read_item_prompts
    from ml.retrieval.dual_encoder.serving import load_scorer
    from ml.retrieval.knn import ItemIndex, save_index

    registry = platform.registry()
    version = registry.version("retriever", alias="candidate")
    prompts = read_item_prompts(pinned(platform, PROMPT_TABLES))
    catalogue = prompts.filter(prompts["is_catalogue"])
    scorer = load_scorer(registry.folder("retriever", alias="candidate"))
    index = ItemIndex(
        items=scorer.embed_items(catalogue["prompt"].to_pylist()),
        item_index=torch.from_numpy(catalogue["item_index"].to_numpy().astype("int64")),
    )
    folder = platform.settings().models / "retrieval_index"
    save_index(index, folder, version={"retriever": str(version.version)})
    num_items, width = index.items.shape
    yield dg.MaterializeResult(
        metadata={
            "items": num_items,
            "width": width,
            "retriever_version": version.version,
            "path": dg.MetadataValue.path(str(folder)),
        }
    )


@dg.asset(
    group_name="inference",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["prompt_ranker", "member_prompts", "item_prompts"],
    output_required=False,
)
def expert_plan(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Which experts to replicate and which to quantise, from a sample of validation traffic."""
    if is_skipped(context, platform):
        return
    from assets.experts import plan_experts

    figures = plan_experts(platform)
    yield dg.MaterializeResult(metadata=numeric_metadata(figures))


@dg.asset(
    group_name="inference",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["expert_plan", "prompt_ranker", "member_prompts", "item_prompts"],
    output_required=False,
)
def optimized_prompt_ranker(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """The prompt ranker with the plan applied: measured on traffic not calibrated on."""
    if is_skipped(context, platform):
        return
    from assets.experts import optimise_experts

    result, version = optimise_experts(platform)
    save_result(platform.settings(), "optimized_prompt_ranker", result)
    yield dg.MaterializeResult(
        metadata={**numeric_metadata(result["headline"]), "model_version": version.version}
    )


@dg.asset_check(asset=optimized_prompt_ranker, blocking=True, pool=MEMORY_POOL)
def experts_fit_the_old_memory(platform: Platform) -> dg.AssetCheckResult:
    """The optimised experts never take more bytes than the original ones."""
    from infra.results import load_result

    result = load_result(platform.settings(), "optimized_prompt_ranker")
    if result is None:
        return dg.AssetCheckResult(passed=True, description="The source has no prompt ranker.")
    before, after = result["bytes_before"], result["bytes_after"]
    return dg.AssetCheckResult(
        passed=after <= before, metadata={"bytes_before": before, "bytes_after": after}
    )
