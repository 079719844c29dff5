"""Search a recipe's fields with Ray Tune, on this process's Ray instance.

Every trial trains the prepared folder's model on one processor with one thread, or on as many
accelerators as a worker of a training takes, in steps of as many batches. "random" trains
them all to the end, "asha" stops those that fall behind, "population" (Jaderberg et al. 2017,
arXiv 1711.09846) lets the worst quarter go on from the best quarter's checkpoints with values
moved by a fifth or drawn anew, every epoch, all members in step. The values of the trials, and a
population's whole course, depend on the seed alone; when asha stops a trial depends on the time.
"""

import logging
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cluster import ClusterConfig, ray_instance
from infra.errors import UserError
from infra.search_fields import check_searchable, chosen_space, differences
from infra.search_kept import is_finished, search_identity
from infra.search_result import SearchResult, TrialRecord, course_notes, read_trial
from infra.search_run import run_trials, scheduler_for
from infra.search_trial import TrialPlan
from infra.searched_models import prepared_recipe

if TYPE_CHECKING:
    from ml.training.search_space import FieldRange

METHODS = ("random", "asha", "population")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Say what is searched.

    Attributes:
        model: Name of the model.
        data: Its prepared folder; left as it is.
        folder: Where the trials go. Those that a random search finds there, the very same and
            come to their end, are kept; whatever else is there is removed.
        space: Fields and ranges; empty for the default of the recipe.
        trials: How many; the size of a population.
        method: "random", "asha" or "population".
        seed: Decides the trials' values.
        step_batches: Batches of a step: the workers of the training that the values are for.
    """

    model: str
    data: Path
    folder: Path
    space: "tuple[FieldRange, ...]" = ()
    trials: int = 8
    method: str = "random"
    seed: int = 0
    step_batches: int = 1

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If there is no such method, or too few trials for it, or batches of a step.
        """
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, not {self.method!r}")
        least = 2 if self.method == "population" else 1
        if self.trials < least:
            raise ValueError(f"a {self.method} search needs at least {least} trials")
        if self.step_batches < 1:
            raise ValueError(f"step_batches must be at least 1, not {self.step_batches}")


def search(config: SearchConfig, *, cluster: ClusterConfig | None = None) -> SearchResult:
    """Run a search to its end.

    Args:
        config: What is searched.
        cluster: What Ray may use; ignored when an instance runs already.

    Returns:
        All trials; those that failed are among them.

    Raises:
        UserError: If a field is unknown, if the recipe cannot be searched, if no trial can begin,
            or if every trial failed.
    """
    recipe = prepared_recipe(config.model, config.data)
    check_searchable(recipe, model=config.model, method=config.method)
    space = config.space or chosen_space((), recipe)
    points = _points(config, space, recipe)
    plan = _plan(config, space, gpus=ray_instance(cluster).gpus_per_worker)
    kept = _cleared(plan, points) if config.method == "random" else _cleared(plan, [])
    numbers = tuple(number for number in range(config.trials) if number not in kept)
    plan, epochs = replace(plan, numbers=numbers), recipe.training.epochs
    if kept:
        _log.info("kept from an earlier search: trials %s", ", ".join(map(str, sorted(kept))))
    scheduler = scheduler_for(config.method, space, epochs=epochs, seed=config.seed)
    own_points = [points[number] for number in numbers]
    lost = run_trials(plan, own_points, scheduler, epochs=epochs) if numbers else {}
    trials = tuple(
        read_trial(
            plan.trial_folder(number),
            number,
            values,
            lost=lost.get(number),
            is_kept=number in kept,
        )
        for number, values in enumerate(points)
    )
    _check_any(trials, config)
    return SearchResult(
        monitor=recipe.training.monitor,
        trials=trials,
        space=space,
        notes=(
            *differences(recipe, step_batches=config.step_batches),
            *(course_notes(trials) if config.method == "population" else ()),
        ),
    )


def _points(
    config: SearchConfig, space: "tuple[FieldRange, ...]", recipe: Any
) -> list[dict[str, float]]:
    from ml.training.search_space import drawn

    try:
        return drawn(space, recipe, trials=config.trials, seed=config.seed)
    except ValueError as error:
        raise UserError(f"the search does not fit the recipe: {error}") from error


def _plan(config: SearchConfig, space: "tuple[FieldRange, ...]", *, gpus: int) -> TrialPlan:
    data = config.data.resolve()
    return TrialPlan(
        model=config.model,
        data=data,
        folder=config.folder.resolve(),
        fields=tuple(each.field for each in space),
        numbers=(),
        shares=config.method == "population",
        step_batches=config.step_batches,
        gpus=gpus,
        identity=search_identity(config.model, data, step_batches=config.step_batches, gpus=gpus),
    )


def _cleared(plan: TrialPlan, points: list[dict[str, float]]) -> set[int]:
    """Remove what an earlier search left, but the trials that need not run again; return those."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    kept = {
        number
        for number, values in enumerate(points)
        if is_finished(plan.trial_folder(number), plan.identity, values)
    }
    stay = {plan.trial_folder(number) for number in kept}
    for path in plan.folder.iterdir():
        if path not in stay:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return kept


def _check_any(trials: tuple[TrialRecord, ...], config: SearchConfig) -> None:
    if any(math.isfinite(trial.score) for trial in trials):
        return
    whole = trials[0].traceback
    raise UserError(
        f"all {len(trials)} trials failed, the first with {trials[0].failure}",
        remedy=f"mend what stops the recipe of the {config.model}, then search again"
        + (f"; the whole traceback is in {whole}" if whole else ""),
    )
