"""Training assets: each reads its tables, fits on Ray Train with HDET, and registers the model."""

from collections.abc import Iterator
from dataclasses import asdict, replace
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

    def resolve(self, module: Any, *, platform: Platform) -> tuple[str, Any]:
        """Return the recipe's name and the full configuration.

        Raises:
            UserError: If there is no such recipe.
        """
        name = self.recipe or ("toy" if platform.settings().profile == "test" else "default")
        try:
            recipe = module.recipe(name)
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
    from assets.fitting import (
        Training,
        data_folder,
        is_unfinished,
        new_data,
        register_training,
        run_training,
    )
    from assets.model_data import RANKER_TABLES, pinned, read_ranker_data, train_rows
    from infra import training_functions
    from infra.input_examples import sequence_example
    from ml.ranking.inputs import RankerInputs
    from ml.ranking.sequence_ranker import recipes
    from ml.ranking.sequence_ranker.fit import prepare_folder
    from ml.training.checkpoint import export_model

    name, recipe = config.resolve(recipes, platform=platform)
    tables = pinned(platform, RANKER_TABLES)
    training = Training(
        name="ranker",
        recipe=name,
        config=asdict(recipe),
        data=data_folder(platform, "ranker"),
        tables=tables,
    )
    if not is_unfinished(training):
        data = read_ranker_data(platform, tables)
        inputs = RankerInputs(
            train=data.splits["train"],
            validation=data.splits["validation"],
            items=data.items,
            spec=data.spec,
        )
        rows = None if recipe.stream is None else train_rows(tables, recipe.stream)
        with new_data(training) as folder:
            prepare_folder(inputs, recipe, folder=folder, rows=rows)
    fitted = run_training(platform, training, train_fn=training_functions.ranker)
    model = export_model(_checkpoint(fitted), platform.settings().models / "ranker")
    version = register_training(
        platform,
        training,
        fitted,
        model=model,
        example=sequence_example(tables),
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
    from assets.fitting import (
        Training,
        data_folder,
        is_unfinished,
        new_data,
        register_training,
        run_training,
    )
    from assets.model_data import PROMPT_TABLES, pinned, prompt_columns, ranking_pairs
    from infra import training_functions
    from infra.input_examples import prompt_example
    from ml.generative.prompt_ranker import recipes
    from ml.generative.prompt_ranker.fit import prepare_folder
    from ml.generative.prompt_ranker.inputs import prepare_inputs
    from ml.training.checkpoint import export_model

    settings = platform.settings()
    name, recipe = config.resolve(recipes, platform=platform)
    if settings.encoder:
        recipe = replace(recipe, encoder=settings.encoder)
    tables = pinned(platform, PROMPT_TABLES)
    training = Training(
        name="prompt_ranker",
        recipe=name,
        config=asdict(recipe),
        data=data_folder(platform, "prompt_ranker"),
        tables=tables,
    )
    if not is_unfinished(training):
        members, items = prompt_columns(tables, purpose="for_ranking")
        inputs = prepare_inputs(members, items, config=recipe)
        with new_data(training) as folder:
            prepare_folder(inputs, recipe, folder=folder)
    fitted = run_training(platform, training, train_fn=training_functions.prompt_ranker)
    model = export_model(_checkpoint(fitted), settings.models / "prompt_ranker")
    pairs = ranking_pairs(tables, split="validation")
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
    from assets.fitting import (
        Training,
        data_folder,
        is_unfinished,
        new_data,
        register_training,
        run_training,
    )
    from assets.model_data import PROMPT_TABLES, pinned, prompt_columns, ranking_pairs
    from infra import training_functions
    from infra.input_examples import prompt_example
    from ml.retrieval.dual_encoder import recipes
    from ml.retrieval.dual_encoder.fit import prepare_folder
    from ml.retrieval.dual_encoder.inputs import prepare_inputs
    from ml.training.checkpoint import export_model

    settings = platform.settings()
    name, recipe = config.resolve(recipes, platform=platform)
    if settings.encoder:
        recipe = replace(recipe, encoder=settings.encoder)
    if (checkpoint := settings.language_model) is not None:
        model_config = replace(recipe.model, checkpoint=checkpoint)
        recipe = replace(recipe, model=model_config, tokenizer=checkpoint)
    tables = pinned(platform, PROMPT_TABLES)
    training = Training(
        name="retriever",
        recipe=name,
        config=asdict(recipe),
        data=data_folder(platform, "retriever"),
        tables=tables,
        is_elastic=False,  # its candidates are pooled over the workers
    )
    if not is_unfinished(training):
        members, items = prompt_columns(tables, purpose="for_retrieval")
        inputs = prepare_inputs(members, items, config=recipe)
        with new_data(training) as folder:
            prepare_folder(inputs, recipe, folder=folder)
    fitted = run_training(platform, training, train_fn=training_functions.retriever)
    model = export_model(_checkpoint(fitted), settings.models / "retriever")
    pairs = ranking_pairs(tables, split="validation")
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
