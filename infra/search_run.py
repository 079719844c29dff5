"""Run the trials of a search on Ray Tune, and tell which of them it lost."""

import functools
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from infra.cluster import ray_instance
from infra.errors import UserError
from infra.head_watch import run_watched
from infra.search_kept import TRACEBACK_FILE
from infra.search_trial import SCORE, TIME, TrialPlan, run_trial

if TYPE_CHECKING:
    from ml.training.search_space import FieldRange

_FLAGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' histories are their own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_TUNE_FOLDER = "tune"
_LONGEST_REASON = 300
# A member reads the checkpoint that it was given before its giver is two epochs further, for all
# meet after each; one more is for a process that is lost on the way.
_POPULATION_KEEPS = 3
# What the first trial may need from its place to its folder: Ray Tune, a process and its imports.
_GRACE_SECONDS = 30.0


def run_trials(
    plan: TrialPlan, points: list[dict[str, float]], scheduler: Any, *, epochs: int
) -> dict[int, str]:
    """Run trials to their end.

    Args:
        plan: What they have in common, and their numbers.
        points: The values of each, in the order of the plan's numbers.
        scheduler: Ray Tune's.
        epochs: After how many a trial is over.

    Returns:
        Why each trial was lost whose process ended for good, by number.

    Raises:
        UserError: If Ray ends, or no trial can begin.
    """
    return run_watched(
        lambda: _run(plan, points, scheduler, epochs=epochs),
        name=_name(plan),
        remedy="run it again",
    )


def scheduler_for(method: str, space: "tuple[FieldRange, ...]", *, epochs: int, seed: int) -> Any:
    """Return Ray Tune's scheduler.

    Args:
        method: "random", "asha" or "population".
        space: Fields and ranges.
        epochs: Most epochs of a trial.
        seed: Decides a population's course.
    """
    from ray.tune import schedulers

    from infra.seeded_population import SeededPopulation

    if method == "asha":
        return schedulers.ASHAScheduler(time_attr=TIME, metric=SCORE, mode="min", max_t=epochs)
    if method == "population":
        return SeededPopulation(
            time_attr=TIME,
            metric=SCORE,
            mode="min",
            perturbation_interval=1,
            hyperparam_mutations={each.field: _domain(each) for each in space},
            custom_explore_fn=functools.partial(_within, space),
            log_config=False,
            synch=True,
            seed=seed,
        )
    return schedulers.FIFOScheduler()


def _domain(field: "FieldRange") -> Any:
    from ray import tune

    return (tune.loguniform if field.log else tune.uniform)(field.low, field.high)


def _within(space: "tuple[FieldRange, ...]", values: dict[str, Any]) -> dict[str, Any]:
    from ml.training.search_space import clipped

    return {**values, **clipped(space, values)}


def _name(plan: TrialPlan) -> str:
    return f"search of the {plan.model}'s recipe"


def _place_limit(plan: TrialPlan) -> Any:
    """Return what ends Ray Tune's loop, from within, if no trial finds a place in time."""
    from ray import tune

    limit = ray_instance().placement_timeout_seconds + _GRACE_SECONDS
    started = time.monotonic()

    class PlaceLimit(tune.Callback):
        """Look before each step of the loop."""

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            """Stop the search if it waits in vain.

            Raises:
                UserError: If no trial has begun for too long.
            """
            has_begun = any(plan.trial_folder(number).exists() for number in plan.numbers)
            if has_begun or time.monotonic() - started < limit:
                return
            gpus = f" and {plan.gpus} GPUs (RANKLAKE_GPUS_PER_WORKER)" if plan.gpus else ""
            raise UserError(
                f"{_name(plan)}: no trial has begun after {limit:.0f} s; a trial takes 1 CPU{gpus},"
                " and no node of the cluster has that free",
                remedy="wait for other trainings to end, and search again",
            )

    return PlaceLimit()


def _run(
    plan: TrialPlan, points: list[dict[str, float]], scheduler: Any, *, epochs: int
) -> dict[int, str]:
    """Run the trials; return why each trial was lost whose process ended."""
    os.environ.update(_FLAGS)
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    resources: dict[str, float] = {"cpu": 1, "gpu": plan.gpus} if plan.gpus else {"cpu": 1}
    tuner = tune.Tuner(
        tune.with_resources(functools.partial(run_trial, plan=plan), resources),
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
            callbacks=[_place_limit(plan)],
            failure_config=tune.FailureConfig(max_failures=1),  # a process that is lost
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_POPULATION_KEEPS),
        ),
    )
    grid = tuner.fit()
    # Ray Tune lists its trials in the order in which it was told of them.
    errors = {number: grid[place].error for place, number in enumerate(plan.numbers)}
    shutil.rmtree(plan.folder / _TUNE_FOLDER)  # copies of what the trials' folders hold
    lost = {number: error for number, error in errors.items() if error is not None}
    for number, error in lost.items():
        if plan.trial_folder(number).is_dir():
            report = plan.trial_folder(number) / TRACEBACK_FILE
            report.write_text(str(error), encoding="utf-8")
    return {number: _loss(error) for number, error in lost.items()}


def _loss(error: Exception) -> str:
    """Say in one line how a trial's process was lost."""
    _, is_dead, cause = " ".join(str(error).split()).rpartition("The actor is dead because ")
    if not is_dead:  # what it ran raised where it could not be written down, as on a full disk
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[-1] if lines else type(error).__name__
    return f"the trial was lost: {cause}"[:_LONGEST_REASON]
