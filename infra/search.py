"""Search a recipe's fields with Ray Tune, on this process's Ray instance.

Every trial trains the prepared folder's model on one processor with one thread. "random" trains
them all to the end, "asha" stops those that fall behind, "population" (Jaderberg et al. 2017,
arXiv 1711.09846) lets the worst quarter go on from the best quarter's checkpoints with values
moved by a fifth or drawn anew, every epoch, all members in step. The values of the trials, and a
population's whole course, depend on the seed alone; when asha stops a trial depends on the time.
"""

import functools
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cluster import ClusterConfig, ray_instance
from infra.errors import UserError
from infra.head_watch import run_watched
from infra.search_trial import FAILURE_FILE, SCORE, TIME, TrialPlan, run_trial
from infra.searched_models import prepared_recipe
from infra.training_log import HISTORY_FILE

if TYPE_CHECKING:
    from ml.training.search_space import FieldRange

METHODS = ("random", "asha", "population")
_FLAGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' histories are their own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_TUNE_FOLDER = "tune"
_LONGEST_REASON = 300
_POPULATION_KEEPS = 3  # fewer may be gone before another member has read them


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Say what is searched.

    Attributes:
        model: Name of the model.
        data: Its prepared folder; left as it is.
        folder: Where the trials go; what an earlier search left there is removed.
        space: Fields and ranges; empty for the default of the recipe.
        trials: How many; the size of a population.
        method: "random", "asha" or "population".
        seed: Decides the trials' values.
    """

    model: str
    data: Path
    folder: Path
    space: "tuple[FieldRange, ...]" = ()
    trials: int = 8
    method: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If there is no such method, or too few trials for it.
        """
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, not {self.method!r}")
        least = 2 if self.method == "population" else 1
        if self.trials < least:
            raise ValueError(f"a {self.method} search needs at least {least} trials")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """Tell how a trial went.

    Attributes:
        number: From 0; the first trial is the recipe as it is.
        values: What it began with.
        history: A line for each epoch: score, metrics, values then in force, and `taken_from`, the
            trial whose checkpoint the epoch's stretch began from, or None for its own.
        failure: Why it failed, or None.
    """

    number: int
    values: dict[str, float]
    history: list[dict[str, Any]]
    failure: str | None

    @property
    def best(self) -> dict[str, Any] | None:
        """Return the line of the epoch with the lowest score, or None if none has a finite one."""
        lines = [line for line in self.history if math.isfinite(line["score"])]
        return min(lines, key=lambda line: line["score"], default=None)

    @property
    def score(self) -> float:
        """Return the lowest score, infinite if there is none."""
        return self.best["score"] if self.best else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Tell what a search found.

    Attributes:
        monitor: The validation metric that is the score; lower is better.
        trials: All trials, by number.
    """

    monitor: str
    trials: tuple[TrialRecord, ...]

    @property
    def best(self) -> TrialRecord:
        """Return the trial with the lowest score."""
        return min(self.trials, key=lambda trial: trial.score)

    @property
    def best_values(self) -> dict[str, float]:
        """Return the values in force at the best epoch of the best trial."""
        line = self.best.best
        assert line is not None, "a search in which no trial has a score is an error"
        return dict(line["values"])


def search(config: SearchConfig, *, cluster: ClusterConfig | None = None) -> SearchResult:
    """Run a search to its end.

    Args:
        config: What is searched.
        cluster: What Ray may use; ignored when an instance runs already.

    Returns:
        All trials; those that failed are among them.

    Raises:
        UserError: If a field is unknown, or if every trial failed.
    """
    from ml.training.search_space import default_space, drawn

    recipe = prepared_recipe(config.model, config.data)
    space = config.space or default_space(recipe)
    try:
        points = drawn(space, recipe, trials=config.trials, seed=config.seed)
    except ValueError as error:
        raise UserError(f"the search does not fit the recipe: {error}") from error
    plan = TrialPlan(
        model=config.model,
        data=config.data.resolve(),
        folder=config.folder.resolve(),
        fields=tuple(each.field for each in space),
        shares=config.method == "population",
    )
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True)
    ray_instance(cluster)
    scheduler = _scheduler(config, space, epochs=recipe.training.epochs)
    lost = run_watched(
        lambda: _run(plan, points, scheduler, epochs=recipe.training.epochs),
        name=f"search of the {config.model}'s recipe",
        remedy="run it again",
    )
    trials = tuple(
        _record(plan, number, values, lost=lost.get(number)) for number, values in enumerate(points)
    )
    if not any(math.isfinite(trial.score) for trial in trials):
        raise UserError(
            f"all {len(trials)} trials failed, the first with {trials[0].failure}",
            remedy=f"mend what stops the recipe of the {config.model}, then search again",
        )
    return SearchResult(monitor=recipe.training.monitor, trials=trials)


def _scheduler(config: SearchConfig, space: "tuple[FieldRange, ...]", *, epochs: int) -> Any:
    from ray.tune import schedulers

    from infra.seeded_population import SeededPopulation

    if config.method == "asha":
        return schedulers.ASHAScheduler(time_attr=TIME, metric=SCORE, mode="min", max_t=epochs)
    if config.method == "population":
        return SeededPopulation(
            time_attr=TIME,
            metric=SCORE,
            mode="min",
            perturbation_interval=1,
            hyperparam_mutations={each.field: _domain(each) for each in space},
            custom_explore_fn=functools.partial(_within, space),
            log_config=False,
            synch=True,
            seed=config.seed,
        )
    return schedulers.FIFOScheduler()


def _domain(field: "FieldRange") -> Any:
    from ray import tune

    return (tune.loguniform if field.log else tune.uniform)(field.low, field.high)


def _within(space: "tuple[FieldRange, ...]", values: dict[str, Any]) -> dict[str, Any]:
    from ml.training.search_space import clipped

    return {**values, **clipped(space, values)}


def _run(
    plan: TrialPlan, points: list[dict[str, float]], scheduler: Any, *, epochs: int
) -> dict[int, str]:
    """Run the trials; return why each trial was lost whose process ended."""
    os.environ.update(_FLAGS)
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    tuner = tune.Tuner(
        tune.with_resources(functools.partial(run_trial, plan=plan), {"cpu": 1}),
        param_space=dict(points[0]),
        tune_config=tune.TuneConfig(
            num_samples=len(points),
            search_alg=BasicVariantGenerator(points_to_evaluate=points),
            scheduler=scheduler,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=_TUNE_FOLDER,
            storage_path=str(plan.folder),
            stop={TIME: epochs},
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=1),  # a process that is lost
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_POPULATION_KEEPS),
        ),
    )
    grid = tuner.fit()
    errors = [grid[number].error for number in range(len(grid))]
    shutil.rmtree(plan.folder / _TUNE_FOLDER)  # copies of what the trials' folders hold
    return {number: _loss(error) for number, error in enumerate(errors) if error is not None}


def _loss(error: Exception) -> str:
    """Say in one line how a trial's process was lost."""
    cause = " ".join(str(error).split()).rpartition("The actor is dead because ")[2]
    return f"the trial was lost: {cause}"[:_LONGEST_REASON]


def _record(
    plan: TrialPlan, number: int, values: dict[str, float], *, lost: str | None
) -> TrialRecord:
    folder = plan.trial_folder(number)
    history, failure = folder / HISTORY_FILE, folder / FAILURE_FILE
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    return TrialRecord(
        number=number,
        values=values,
        history=[json.loads(line) for line in lines],
        failure=failure.read_text(encoding="utf-8") if failure.exists() else lost,
    )
