"""Does a population find the learning rate that HDET finds, for the same work? Against one cycle.

A ranker is trained on a simulated feed from a learning rate that is right (factor 1 of the recipe)
or wrong (1/8, 8). Every method pays for as many gradients, of equal batches, and for as many
validations: `one_cycle` trains one model for all epochs; `hdet` shares these epochs out to four
replicas, a quarter of the steps each with the gradients of four batches; `population` gives four
members a quarter of the epochs each, one of them from the given rate, the others from rates drawn
up to eight times lower or higher, as `make search PBT=1` does. HDET's reach, gain x spread x syncs,
is at least 5 (a factor of eight twice needs 4.2). The checkpoint that is best on validation days
is judged on the test days.

Run: make bench BENCH=population [ARGS="users seeds epochs"]
Source: Jaderberg et al. 2017, arXiv 1711.09846, for the population; hdet 2.1.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from infra import training_functions
from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.ray_training import FitPlan, fit
from infra.search import SearchConfig, search
from ml.metrics import normalized_entropy
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker import fit as ranker
from ml.ranking.sequence_ranker.recipes import RankerConfig, toy
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for, load_ranker
from ml.training.checkpoint import load_state
from ml.training.hdet.controller import HdetConfig
from ml.training.search_space import default_space
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import FeedExam, feed_exam
from tests.benchmarks.replay import mean_with_half_width
from tests.benchmarks.result_line import print_result

USERS, SEEDS, EPOCHS = 400, 3, 12
STARTS = (1 / 8, 1.0, 8.0)
METHODS = ("one_cycle", "hdet", "population")
_SYNCS, _GAIN, _SPREAD = 20, 0.5, 0.5
_EVENTS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Say how much is measured.

    Attributes:
        users: Users of the feed.
        epochs: Passes over the train days that each method pays for, a multiple of the members.
        seeds: Feeds and fits.
        starts: Factors on the recipe's learning rate.
        days: Days of the feed, the last three for the test, the three before for validation.
        members: Replicas of HDET, and members of a population.
    """

    users: int = USERS
    epochs: int = EPOCHS
    seeds: int = SEEDS
    starts: tuple[float, ...] = STARTS
    days: int = 30
    members: int = 4

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the epochs cannot be shared out to the members.
        """
        if self.epochs % self.members:
            raise ValueError(f"epochs must be a multiple of {self.members}, not {self.epochs}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """Hold one start of one seed.

    Attributes:
        exam: Data.
        recipe: Trains for all epochs, from the start's learning rate.
        folder: An empty folder.
        members: How many share the epochs.
    """

    exam: FeedExam
    recipe: RankerConfig
    folder: Path
    members: int

    def prepared(self, recipe: RankerConfig) -> Path:
        """Write a prepared folder of a recipe and return it."""
        splits = self.exam.splits
        inputs = RankerInputs(
            train=splits["train"],
            validation=splits["validation"],
            items=self.exam.items,
            spec=self.exam.spec,
        )
        return ranker.prepare_folder(inputs, recipe, folder=self.folder / "data")


def one_cycle(task: Task) -> list[Path]:
    """Train one model; return the folder of its checkpoints."""
    folder = task.prepared(task.recipe)
    ranker.fit(folder, report=lambda *_: None, prepare=lambda model: model)
    return [folder / "checkpoints"]


def hdet(task: Task) -> list[Path]:
    """Train on replicas that share the epochs out; return the folder of checkpoints."""
    folder = task.prepared(task.recipe)
    plan = FitPlan(name="hdet", folder=task.folder, workers=task.members)
    fit(training_functions.ranker, {"data": str(folder)}, plan)
    return [folder / "checkpoints"]


def population(task: Task) -> list[Path]:
    """Train members for a share of the epochs each; return the folders of their checkpoints."""
    training = task.recipe.training
    recipe = replace(
        task.recipe, training=replace(training, epochs=training.epochs // task.members)
    )
    config = SearchConfig(
        model="ranker",
        data=task.prepared(recipe),
        folder=task.folder / "population",
        space=default_space(recipe)[:1],  # the learning rate, which is what HDET steers
        trials=task.members,
        method="population",
        seed=training.seed,
    )
    return [
        config.folder / f"trial-{trial.number:03d}" / "checkpoints"
        for trial in search(config).trials
    ]


_RUN: dict[str, Callable[[Task], list[Path]]] = {
    "one_cycle": one_cycle,
    "hdet": hdet,
    "population": population,
}


def measure(size: Size, *, methods: tuple[str, ...] = METHODS) -> dict[str, float | None]:
    """Return the figures of all seeds: mean test entropies, seconds and paired differences.

    A half width is that of the difference's 95 % interval by Student's t over the seeds.
    """
    entropies: dict[tuple[str, float], list[float]] = {}
    seconds: dict[str, float] = dict.fromkeys(methods, 0.0)
    for seed in range(size.seeds):
        exam = feed_exam(
            FeedConfig(users=size.users, days=size.days, seed=7 + seed),
            validation_day=size.days - 6,
            test_day=size.days - 3,
        )
        for start in size.starts:
            for method in methods:
                began = time.perf_counter()
                with TemporaryDirectory() as folder:
                    recipe = start_recipe(exam, size, seed=seed, start=start)
                    task = Task(exam=exam, recipe=recipe, folder=Path(folder), members=size.members)
                    entropy = _tried(task, method)
                seconds[method] += time.perf_counter() - began
                entropies.setdefault((method, start), []).append(entropy)
                print(f"seed {seed}, start {start:g}, {method}: {entropy:.5f}", flush=True)
    return _figures(entropies) | {f"{name}_seconds": value for name, value in seconds.items()}


def _tried(task: Task, method: str) -> float:
    """Return the test entropy, NaN for a training that failed."""
    try:
        return _entropy(task.exam, _RUN[method](task))
    except (FloatingPointError, UserError) as error:
        print(f"{method} failed: {error}")
        return float("nan")


def start_recipe(exam: FeedExam, size: Size, *, seed: int, start: float) -> RankerConfig:
    """Return the recipe of a start: its learning rate, all epochs, HDET with enough syncs."""
    recipe = toy()
    batches = replace(recipe.batches, events=_EVENTS, seed=seed)
    training = replace(
        recipe.training,
        epochs=size.epochs,
        patience=size.epochs,
        learning_rate=recipe.training.learning_rate * start,
        seed=seed,
    )
    steps = size.epochs * exam.splits["train"].num_events // _EVENTS // size.members
    every = max(1, steps // _SYNCS)
    hdet = HdetConfig(sync_steps=every, gain=_GAIN, spread_fraction=_SPREAD, seed=seed)
    return replace(recipe, batches=batches, training=replace(training, hdet=hdet))


def _entropy(exam: FeedExam, folders: list[Path]) -> float:
    """Return the test entropy of the checkpoint that is best on validation."""
    found = [path.parent for folder in folders for path in folder.glob("step-*/state.json")]
    best = min(found, key=lambda path: load_state(path)["history"][-1]["validation_ne"])
    model, test = load_ranker(best), exam.splits["test"]
    return normalized_entropy(
        test.labels(0)[test.is_target], score(model, batches_for(model, test))[:, 0]
    )


def _figures(entropies: dict[tuple[str, float], list[float]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for (method, start), values in entropies.items():
        figures[f"{method}_{start:g}"] = _mean(np.array(values))
        if method != "one_cycle" and ("one_cycle", start) in entropies:
            gap = np.array(values) - np.array(entropies["one_cycle", start])
            figures[f"{method}_{start:g}_minus_one_cycle"] = _mean(gap)
            half = mean_with_half_width(gap)[1]
            figures[f"{method}_{start:g}_half_width"] = half if np.isfinite(half) else None
    return figures


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if np.isfinite(values).all() else None


def main(arguments: list[str]) -> int:
    """Print the table; there is no goal but the figures."""
    torch.set_num_threads(1)
    users, seeds, epochs = [int(a) for a in arguments] + [USERS, SEEDS, EPOCHS][len(arguments) :]
    ray_instance(ClusterConfig(cpus=2))
    figures = measure(Size(users=users, seeds=seeds, epochs=epochs))
    stop_ray()
    return 0 if print_result("population", figures, goals=()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
