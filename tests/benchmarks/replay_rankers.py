"""The rankers of the replay bench, and their scores of candidates at one position."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ml.batches import Batch
from ml.features import FloatArray, SequenceData
from ml.ranking.bayesian_last_layer import PosteriorConfig
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker import recipes
from ml.ranking.sequence_ranker.event_weights import EventWeightConfig
from ml.ranking.sequence_ranker.exploration import (
    Explorer,
    seen_candidates,
    seen_targets,
    split_seen,
)
from ml.ranking.sequence_ranker.heads import POSITION_COLUMN
from ml.ranking.sequence_ranker.model import Context, SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.score import of_targets
from ml.ranking.sequence_ranker.training import batches_for, build_model, ranker_job
from ml.training.checkpoint import load_model
from ml.training.loop import train
from pipelines.sources.simulation.calendar import HOUR_SECONDS
from tests.benchmarks.feed_exam import FeedExam

SERVED_AT = 1  # positions count from 1
WIDTHS = (0.0, 1.0, 3.0)
BASE = "attn_mvp"
POSTERIOR = PosteriorConfig(prior_deviation=1.0, memory=1.0)

# Shapes: T target events, B sequences, L candidates.


def sequence_recipes() -> dict[str, RankerConfig]:
    """Return the sequence rankers by name: IPW and position offsets alone, and within Feed-SR."""
    base = recipes.attn_mvp()
    return {
        BASE: base,
        "attn_mvp_ipw": replace(base, weights=EventWeightConfig(uses_propensity=True)),
        "attn_mvp_offsets": replace(base, model=replace(base.model, position_offsets=True)),
        "feed_sr": recipes.feed_sr(),
    }


def fitted(
    exam: FeedExam, recipe: RankerConfig, *, seed: int, epochs: int, folder: Path
) -> SequenceRanker:
    """Return a ranker with the weights of its best epoch on validation."""
    recipe = replace(
        recipe,
        batches=replace(recipe.batches, seed=seed),
        training=replace(recipe.training, epochs=epochs, seed=seed),
    )
    inputs = RankerInputs(
        train=exam.splits["train"],
        validation=exam.splits["validation"],
        items=exam.items,
        spec=exam.spec,
    )
    model = build_model(recipe, spec=exam.spec, items=exam.items, train=inputs.train)
    job = ranker_job(model, inputs, recipe, folder=folder)
    result = train(model, job, recipe.training, report=lambda *_: None, prepare=lambda m: m)
    load_model(result.checkpoint, model)
    return model.eval()


def at_one_position(data: SequenceData) -> SequenceData:
    """Return the data with every target event at the position at which candidates are served."""
    position = np.where(data.is_target, SERVED_AT, data.position).astype(np.int32)
    return replace(data, position=position)


def served(
    model: SequenceRanker,
    data: SequenceData,
    *,
    compute: Callable[[Batch, Context], Tensor],
    width: int,
) -> FloatArray:
    """Return what is computed for target events as candidates at one position, [T, width].

    Histories keep the positions at which their items were shown; a candidate sees earlier
    requests only.

    Args:
        model: A trained ranker.
        data: Sequences.
        compute: Takes candidates and the context of their users, returns [B, L, width].
        width: Numbers per event.
    """

    def run(batch: Batch) -> Tensor:
        facts = batch.context.clone()
        facts[..., POSITION_COLUMN] = SERVED_AT
        return compute(replace(batch, context=facts), model.context_cache(batch))

    return of_targets(model, batches_for(model, data), compute=run, width=width)


def model_scores(model: SequenceRanker, data: SequenceData) -> FloatArray:
    """Return the click's logit of the target events at one position, [T]."""
    return served(model, data, compute=model.score_candidates, width=1)[:, 0]


def explored(model: SequenceRanker, exam: FeedExam) -> dict[str, FloatArray]:
    """Return Thompson scores of the test days' events by name of their width; 0 is greedy."""
    explorer = Explorer.start(model, config=POSTERIOR).after_training_on(
        seen_targets(model, batches_for(model, exam.splits["train"]))
    )

    def compute(candidates: Batch, context: Context) -> Tensor:
        return seen_candidates(model, candidates, context)

    test = exam.splits["test"]
    width = len(explorer.posteriors[0].prior_mean)  # the features without their 1, and the click
    seen = split_seen(served(model, test, compute=compute, width=width), num_actions=1)
    members = test.user[test.event_row][test.is_target]
    hours = test.time[test.is_target] // HOUR_SECONDS
    return {
        f"thompson_{wide:g}": explorer.scores(seen, members=members, hours=hours, width=wide)[:, 0]
        for wide in WIDTHS
    }
