"""The search asset: trials of a model's recipe with other numbers, and the best of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.outcomes import MEMORY_POOL, OWNERS, numeric_metadata
from assets.training import RecipeConfig
from infra.errors import UserError
from infra.platform import Platform

if TYPE_CHECKING:
    from infra.search import SearchConfig


class RecipeSearchConfig(RecipeConfig):
    """What a call may choose; the recipe, its steps and overrides are where the trials begin."""

    model: str = Field(default="ranker", description="ranker, retriever or prompt_ranker.")
    fields: list[str] = Field(
        default=[],
        description="Numbers of the recipe to search, each alone or as path=low:high; none for "
        "learning rate, weight decay and dropout.",
    )
    trials: int = Field(default=8, description="Trials, or members of a population.")
    method: str = Field(default="random", description="random, asha or population.")
    seed: int = Field(default=0, description="Decides the trials' values.")


@dg.asset(
    group_name="evaluation",
    kinds={"ray", "pytorch", "mlflow"},
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=[
        "sequences",
        "item_versions",
        "semantic_ids",
        "item_embeddings",
        "member_prompts",
        "item_prompts",
    ],
)
def recipe_search(
    context: dg.AssetExecutionContext, platform: Platform, config: RecipeSearchConfig
) -> Iterator[dg.MaterializeResult]:
    """Trials of one model's learning rate, weight decay and dropout, judged on validation."""
    from assets.preparation import PREPARED
    from infra.results import save_result
    from infra.search import search
    from infra.search_log import log_search, search_figures
    from infra.searched_models import searched_model

    searched_model(config.model)
    manifest = platform.manifest()
    if (reason := manifest.cannot_feed.get(config.model)) is not None:
        raise UserError(f"{manifest.source} cannot feed the {config.model}: {reason}")
    search_config = search_plan(platform, config)
    training = PREPARED[config.model](platform, config, folder=_folder(config))
    platform.start_ray()
    context.log.info("%d trials of the %s's recipe", config.trials, config.model)
    result = search(search_config)
    run_id = log_search(
        platform.registry(experiment="search"),
        search_config,
        result,
        recipe={"recipe": training.recipe, **training.config},
        data_versions=training.tables.versions,
    )
    kept = {
        **search_figures(result),
        "method": config.method,
        "step_batches": search_config.step_batches,
        "run_config": _run_config(config, result.best_values),
        "mlflow_run": run_id,
    }
    save_result(platform.settings(), f"search_{config.model}", kept)
    failed = sum(trial.failure is not None for trial in result.trials)
    shown = {"best_score": result.best.score, "trials": config.trials, "failed_trials": failed}
    best = {f"best.{field}": value for field, value in result.best_values.items()}
    yield dg.MaterializeResult(metadata=numeric_metadata({**shown, **best, "mlflow_run": run_id}))


def search_plan(platform: Platform, config: RecipeSearchConfig) -> "SearchConfig":
    """Return what is to be searched, before anything of it is prepared.

    A step of a trial has as many batches as one of the model's training has workers.

    Args:
        platform: Settings.
        config: What the call chose.

    Raises:
        UserError: If method, trials, fields or ranges are wrong, or the recipe cannot be searched.
    """
    from assets.fitting import data_folder
    from infra.search import SearchConfig
    from infra.search_fields import check_searchable, chosen_space
    from infra.searched_models import searched_model

    _, recipe = config.resolve(searched_model(config.model).recipe_module, platform=platform)
    settings = platform.settings()
    try:
        plan = SearchConfig(
            model=config.model,
            data=data_folder(platform, _folder(config)),
            folder=settings.ray_folder / "search" / config.model,
            space=chosen_space(config.fields, recipe),
            trials=config.trials,
            method=config.method,
            seed=config.seed,
            step_batches=settings.workers,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    check_searchable(recipe, model=config.model, method=config.method)
    return plan


def _folder(config: RecipeSearchConfig) -> str:
    """Return the name of the folder that the trials' data is prepared in."""
    return f"search_{config.model}"


def _run_config(config: RecipeSearchConfig, best: dict[str, float]) -> dict[str, Any]:
    """Return the run configuration that trains the model with the best values."""
    chosen = {"recipe": config.recipe, "max_steps": config.max_steps}
    fields = {name: value for name, value in chosen.items() if value is not None}
    overrides = {**config.overrides, **best}
    return {"ops": {config.model: {"config": {**fields, "overrides": overrides}}}}
