"""Evaluation assets: the models on the held-out period, and who becomes champion."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.outcomes import MEMORY_POOL, OWNERS, is_skipped, numeric_metadata
from infra.platform import Platform
from infra.results import load_result, save_result

_KINDS = {"pytorch", "scikitlearn", "mlflow"}


@dg.asset(
    group_name="evaluation",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["ranker", "prompt_ranker"],
    output_required=False,
)
def ranking_evaluation(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """Both rankers on the test period: metrics, rivals, references, intervals by user."""
    if is_skipped(context, platform):
        return
    from assets.judging import judge_prompt_ranker, judge_ranker

    result: dict[str, Any] = {"ranker": judge_ranker(platform)}
    result["prompt_ranker"] = judge_prompt_ranker(platform)
    result["headline"] = {
        **result["ranker"].pop("headline"),
        **result["prompt_ranker"].pop("headline"),
    }
    save_result(platform.settings(), "ranking_evaluation", result)
    yield dg.MaterializeResult(metadata=numeric_metadata(result["headline"]))


@dg.asset(
    group_name="evaluation",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["retriever", "retrieval_index", "sequences", "member_prompts"],
    output_required=False,
)
def retrieval_evaluation(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult]:
    """The retriever on the test period's next engaged items, over the full catalogue."""
    if is_skipped(context, platform):
        return
    from assets.judging import judge_retriever

    result = judge_retriever(platform)
    save_result(platform.settings(), "retrieval_evaluation", result)
    yield dg.MaterializeResult(metadata=numeric_metadata(result["headline"]))


def _verdict(platform: Platform, *, evaluation: str, part: str | None, model: str) -> Any:
    """Check a result against its rivals; promote the candidate if it beats all of them."""
    found = load_result(platform.settings(), evaluation)
    if found is None:
        return dg.AssetCheckResult(
            passed=True, description="The source cannot feed this evaluation."
        )
    verdict = (found[part] if part else found)["verdict"]
    if verdict["passed"]:
        registry = platform.registry()
        candidate = registry.version(model, alias="candidate")
        registry.promote(model, version=candidate.version)
    return dg.AssetCheckResult(
        passed=verdict["passed"],
        severity=dg.AssetCheckSeverity.WARN,
        metadata=numeric_metadata(verdict["figures"]),
        description=verdict["reason"],
    )


@dg.asset_check(asset=ranking_evaluation, pool=MEMORY_POOL)
def ranker_beats_its_rivals(platform: Platform) -> dg.AssetCheckResult:
    """The ranker's NE is below every rival's, zero outside the paired interval; then champion."""
    return _verdict(platform, evaluation="ranking_evaluation", part="ranker", model="ranker")


@dg.asset_check(asset=ranking_evaluation, pool=MEMORY_POOL)
def prompt_ranker_beats_popularity(platform: Platform) -> dg.AssetCheckResult:
    """The prompt ranker's NE is below 1 and its AUC above popularity's; then champion."""
    return _verdict(
        platform, evaluation="ranking_evaluation", part="prompt_ranker", model="prompt_ranker"
    )


@dg.asset_check(asset=retrieval_evaluation, pool=MEMORY_POOL)
def retriever_beats_its_rivals(platform: Platform) -> dg.AssetCheckResult:
    """The lower end of the retriever's recall is above the best rival's; then champion."""
    return _verdict(platform, evaluation="retrieval_evaluation", part=None, model="retriever")
