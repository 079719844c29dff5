"""Training assets: each reads its tables, fits on Ray Train with HDET, and registers the model."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.outcomes import OWNERS, is_skipped
from infra.platform import Platform

_KINDS = {"ray", "pytorch", "mlflow"}


class RecipeConfig(dg.Config):
    """What a run may change of a training."""

    recipe: str | None = Field(
        default=None, description="Name of a recipe; the profile's by default."
    )
    max_steps: int | None = Field(default=None, description="Optimiser steps at most.")


@dg.asset(
    group_name="training",
    kinds=_KINDS,
    owners=OWNERS,
    deps=["sequences", "items", "semantic_ids", "item_embeddings"],
    output_required=False,
)
def ranker(
    context: dg.AssetExecutionContext, platform: Platform, config: RecipeConfig
) -> Iterator[dg.MaterializeResult]:
    """AttnMVP: a multi-task ranker that mixes past actions into strictly causal attention."""
    if is_skipped(context, platform):
        return
    from infra.trainings.ranker import train_ranker

    yield dg.MaterializeResult(metadata=train_ranker(platform, **config.model_dump()))
