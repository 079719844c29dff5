"""Training assets: each reads its tables, fits on Ray Train with HDET, and registers the model."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.outcomes import MEMORY_POOL, OWNERS, is_skipped, numeric_metadata
from infra.errors import UserError
from infra.platform import Platform

if TYPE_CHECKING:
    from infra.ray_training import FitResult

_KINDS = {"ray", "pytorch", "mlflow"}


class RecipeConfig(dg.Config):
    """What a run may change of a training."""

    recipe: str | None = Field(
        default=None, description="Name of a recipe; the profile's by default."
    )
    max_steps: int | None = Field(default=None, description="Optimiser steps at most.")
    overrides: dict[str, float] = Field(
        default={},
        description="Numbers of the recipe by path, such as training.learning_rate; a search "
        "writes those that it found best.",
    )
    fresh: bool = Field(
        default=False,
        description="Begin anew where this very training was interrupted, and do not go on.",
    )

    def resolve(self, module: Any, *, platform: Platform) -> tuple[str, Any]:
        """Return the recipe's name and the full configuration.

        Raises:
            UserError: If there is no such recipe, or it has no such number.
        """
        from ml.training.search_space import replaced

        name = self.recipe or ("toy" if platform.settings().profile == "test" else "default")
        try:
            recipe = replaced(module.recipe(name), self.overrides)
        except ValueError as error:
            raise UserError(str(error)) from error
        if self.max_steps is not None:
            recipe = replace(recipe, training=replace(recipe.training, max_steps=self.max_steps))
        return name, recipe


@dg.asset(
    group_name="training",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["sequences", "item_versions", "semantic_ids", "item_embeddings"],
    output_required=False,
)
def ranker(
    context: dg.AssetExecutionContext, platform: Platform, config: RecipeConfig
) -> Iterator[dg.MaterializeResult]:
    """AttnMVP: a multi-task ranker that mixes past actions into strictly causal attention."""
    if is_skipped(context, platform):
        return
    from assets.fitting import register_training, run_training
    from assets.preparation import prepared_ranker
    from infra import training_functions
    from infra.input_examples import sequence_example
    from ml.training.checkpoint import export_model

    training = prepared_ranker(platform, config, folder="ranker")
    fitted = run_training(platform, training, train_fn=training_functions.ranker)
    model = export_model(_checkpoint(fitted), platform.settings().models / "ranker")
    version = register_training(
        platform,
        training,
        fitted,
        model=model,
        example=sequence_example(training.tables),
    )
    yield _trained(fitted, version)


@dg.asset(
    group_name="training",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["member_prompts", "item_prompts"],
    output_required=False,
)
def prompt_ranker(
    context: dg.AssetExecutionContext, platform: Platform, config: RecipeConfig
) -> Iterator[dg.MaterializeResult]:
    """A sparse mixture-of-experts decoder that reads the prompt and answers yes or no."""
    if is_skipped(context, platform):
        return
    from assets.fitting import register_training, run_training
    from assets.model_data import ranking_pairs
    from assets.preparation import prepared_prompt_ranker
    from infra import training_functions
    from infra.input_examples import prompt_example
    from ml.training.checkpoint import export_model

    training = prepared_prompt_ranker(platform, config, folder="prompt_ranker")
    fitted = run_training(platform, training, train_fn=training_functions.prompt_ranker)
    model = export_model(_checkpoint(fitted), platform.settings().models / "prompt_ranker")
    pairs = ranking_pairs(training.tables, split="validation")
    example = prompt_example(pairs.members, pairs.items)
    version = register_training(platform, training, fitted, model=model, example=example)
    yield _trained(fitted, version)


@dg.asset(
    group_name="training",
    kinds=_KINDS,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["member_prompts", "item_prompts"],
    output_required=False,
)
def retriever(
    context: dg.AssetExecutionContext, platform: Platform, config: RecipeConfig
) -> Iterator[dg.MaterializeResult]:
    """A dual encoder: one causal language model embeds members and items by their prompts."""
    if is_skipped(context, platform):
        return
    from assets.fitting import register_training, run_training
    from assets.model_data import ranking_pairs
    from assets.preparation import prepared_retriever
    from infra import training_functions
    from infra.input_examples import prompt_example
    from ml.training.checkpoint import export_model

    training = prepared_retriever(platform, config, folder="retriever")
    fitted = run_training(platform, training, train_fn=training_functions.retriever)
    model = export_model(_checkpoint(fitted), platform.settings().models / "retriever")
    pairs = ranking_pairs(training.tables, split="validation")
    example = prompt_example(pairs.members, pairs.items)
    version = register_training(platform, training, fitted, model=model, example=example)
    yield _trained(fitted, version)


def _checkpoint(fitted: "FitResult") -> Path:
    assert fitted.checkpoint is not None, "the training reported no checkpoint"
    return fitted.checkpoint


def _trained(fitted: Any, version: Any) -> dg.MaterializeResult:
    figures = {k: v for k, v in fitted.metrics.items() if isinstance(v, int | float)}
    return dg.MaterializeResult(
        metadata={
            **numeric_metadata(figures),
            "model_version": version.version,
            "mlflow_run": version.run_id,
            "seconds": fitted.seconds,
            "startup_seconds": fitted.startup_seconds,
        }
    )
