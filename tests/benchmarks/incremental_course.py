"""One seed of the incremental bench: cold starts, and the ways to take in the days since.

Epochs are fixed beforehand and the last weights are kept, so no later day helps a training.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ml.features import FloatArray, SequenceData
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker import recipes
from ml.ranking.sequence_ranker.event_weights import only_new_targets
from ml.ranking.sequence_ranker.incremental import Continuation, anchor, incremental_job
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for, build_model, ranker_job
from ml.training.checkpoint import newest_checkpoint
from ml.training.fisher_prior import Anchor, FisherPrior
from ml.training.job import TrainJob
from ml.training.loop import train
from pipelines.sources.simulation.calendar import DAY_SECONDS
from tests.benchmarks.feed_exam import FeedExam

TRAIN_DAYS, INCREMENTS = 25, 7
# Of the increments: better than 3e-4 on the validation days of a feed of seed 99. A cold start
# has its recipe's.
LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """Say how the new days are taken in.

    Attributes:
        cold_share: Share alpha of the cold start in the prior; None for no prior.
        strength: Factor lambda of the prior.
    """

    cold_share: float | None = None
    strength: float = 0.0


ALPHAS, LAMBDAS = (0.0, 0.5), (30.0, 1000.0)
WAYS = {"naive": Way()} | {
    f"fisher_{share:g}_{strength:g}": Way(cold_share=share, strength=strength)
    for share in ALPHAS
    for strength in LAMBDAS
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Hold what a training took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of this process's cores.
    """

    wall: float
    cpu: float

    def __add__(self, other: "Cost") -> "Cost":
        """Return both together."""
        return Cost(wall=self.wall + other.wall, cpu=self.cpu + other.cpu)


NO_COST = Cost(wall=0.0, cpu=0.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result:
    """Hold what a way of training came to.

    Attributes:
        cost: Of the training that ends at T: a cold start's, or the mean update's.
        validation: Click probabilities of the first days after T.
        test: The same of the days after those.
    """

    cost: Cost
    validation: FloatArray
    test: FloatArray


class Stopwatch:
    """Add up what the work inside took."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.cost = NO_COST

    def __enter__(self) -> "Stopwatch":
        """Begin."""
        self._began = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        """Add."""
        wall, cpu = self._began
        self.cost += Cost(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def before(data: SequenceData, instant: int) -> SequenceData:
    """Return the events before an instant; users without any are left out."""
    keep = data.time < instant
    lengths = np.bincount(data.event_row[keep], minlength=data.num_rows)
    has_any = lengths > 0
    columns = {field.name: getattr(data, field.name)[keep] for field in fields(data)[3:]}
    return SequenceData(
        offsets=np.concatenate([[0], np.cumsum(lengths[has_any])]).astype(np.int64),
        user=data.user[has_any],
        split=data.split[has_any],
        **columns,
    )


class Course:
    """One seed: a feed, its cold starts, and the ways to take in its last week."""

    def __init__(self, exam: FeedExam, *, seed: int, epochs: int, folder: Path) -> None:
        """Prepare the recipe.

        Args:
            exam: The feed; its train split ends at T.
            seed: Seed of the fits.
            epochs: Passes of a cold start over its days.
            folder: Where checkpoints go.
        """
        recipe = recipes.attn_mvp()
        training = replace(recipe.training, epochs=epochs, patience=epochs + 1, seed=seed)
        batches = replace(recipe.batches, seed=seed)
        self.recipe = replace(recipe, training=training, batches=batches)
        self.exam, self.folder = exam, folder

    def cold(self, instant: int, *, name: str) -> tuple[SequenceRanker, Cost]:
        """Return a ranker trained on all days before an instant, and what that took."""
        inputs = self.inputs(instant)
        with Stopwatch() as watch:
            model = build_model(
                self.recipe, spec=self.exam.spec, items=self.exam.items, train=inputs.train
            )
            job = ranker_job(model, inputs, self.recipe, folder=self.folder / name)
            _run(model, job, self.recipe)
        return model, watch.cost

    def anchor(self, model: SequenceRanker, instant: int) -> tuple[Anchor, Cost]:
        """Return the anchor of a cold start on the days before an instant, and what it took."""
        with Stopwatch() as watch:
            held = anchor(model, self.inputs(instant), self.recipe)
        return held, watch.cost

    def updated(self, way: Way, *, name: str, start: int, cold: Anchor) -> Result:
        """Return the ranker after all increments, judged, with the mean cost of one.

        Args:
            way: How the days are taken in.
            name: Names the folder of its checkpoints.
            start: When the cold start ended.
            cold: Its anchor.
        """
        training = replace(self.recipe.training, epochs=1, learning_rate=LEARNING_RATE)
        recipe, watch = replace(self.recipe, training=training), Stopwatch()
        previous, latest = cold, newest_checkpoint(self.folder / "start")
        model = self._new()
        for day in range(INCREMENTS):
            since, folder = start + day * DAY_SECONDS, self.folder / name / str(day)
            inputs = self.inputs(since + DAY_SECONDS)
            prior = _prior(way, cold=cold, previous=previous)
            assert latest is not None
            continuation = Continuation(since=since, previous=latest, prior=prior)
            with watch:
                job = incremental_job(
                    model, inputs, recipe, continuation=continuation, folder=folder
                )
                _run(model, job, recipe)
                if prior is not None:
                    day_only = replace(inputs, train=only_new_targets(inputs.train, since=since))
                    previous = anchor(model, day_only, recipe)
            latest = newest_checkpoint(folder)
        cost = Cost(wall=watch.cost.wall / INCREMENTS, cpu=watch.cost.cpu / INCREMENTS)
        return self.judged(model, cost=cost)

    def judged(self, model: SequenceRanker, *, cost: Cost) -> Result:
        """Return a ranker's probabilities of the clicks after T, with its cost."""
        scored = {
            name: score(model, batches_for(model, self.exam.splits[name]))[:, 0]
            for name in ("validation", "test")
        }
        return Result(cost=cost, **scored)

    def _new(self) -> SequenceRanker:
        return build_model(self.recipe, spec=self.exam.spec, items=self.exam.items)

    def inputs(self, instant: int) -> RankerInputs:
        """Return the days before an instant; validation is a token, since nothing is chosen."""
        return RankerInputs(
            train=before(self.exam.splits["train"], instant),
            validation=self.exam.splits["validation"].take(np.arange(8)),
            items=self.exam.items,
            spec=self.exam.spec,
        )


def _prior(way: Way, *, cold: Anchor, previous: Anchor) -> FisherPrior | None:
    if way.cold_share is None:
        return None
    return FisherPrior(
        cold=cold, previous=previous, cold_share=way.cold_share, strength=way.strength
    )


def _run(model: SequenceRanker, job: TrainJob, recipe: RankerConfig) -> None:
    """Train; the model is left with the weights of the last epoch."""
    train(model, job, recipe.training, report=lambda *_: None, prepare=lambda m: m)


def course(exam: FeedExam, *, seed: int, epochs: int, ways: Mapping[str, Way]) -> dict[str, Result]:
    """Return the results of every way for one seed, by name; stale's cost is its anchor's."""
    end = TRAIN_DAYS * DAY_SECONDS
    start = end - INCREMENTS * DAY_SECONDS
    with TemporaryDirectory() as folder:
        own = Course(exam, seed=seed, epochs=epochs, folder=Path(folder))
        whole, whole_cost = own.cold(end, name="whole")
        results = {"cold": own.judged(whole, cost=whole_cost)}
        early, _ = own.cold(start, name="start")
        held, anchor_cost = own.anchor(early, start)
        results["stale"] = own.judged(early, cost=anchor_cost)
        for name, way in ways.items():
            results[name] = own.updated(way, name=name, start=start, cold=held)
    return results
