"""Train on new interactions only: the whole history is input, the loss is of new events.

A cold training takes weeks of events; each following one starts from the last weights, sees the
events since, and may be held near older weights where those were sure (a Fisher prior).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.event_weights import only_new_targets
from ml.ranking.sequence_ranker.loss import multi_task_loss
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import RankerConfig
from ml.ranking.sequence_ranker.training import batches_for, ranker_job
from ml.training.checkpoint import load_model
from ml.training.fisher_prior import Anchor, FisherPrior
from ml.training.job import TrainJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """Say from where, and from when, a training goes on.

    Attributes:
        since: Seconds since 1970; events from then on count in the loss.
        previous: Checkpoint of the last training.
        prior: What the weights are drawn to; None to start from the checkpoint and go freely.
    """

    since: int
    previous: Path
    prior: FisherPrior | None = None


def incremental_job(
    model: SequenceRanker,
    inputs: RankerInputs,
    config: RankerConfig,
    *,
    continuation: Continuation,
    folder: Path,
) -> TrainJob:
    """Load the last weights into a model and return the job that trains it further.

    Args:
        model: A model of the same recipe; base rates and origin of time come with the weights.
        inputs: The train split up to now, old events included.
        config: The recipe; its epochs are those of the increment.
        continuation: From where, and from when.
        folder: Where checkpoints go.

    Raises:
        ValueError: If no event is new, or the anchors are of another model.

    Source: feed-sr 4.2 (loss on new interactions only); lirank 5.6 (Fisher prior).
    """
    fresh = only_new_targets(inputs.train, since=continuation.since)
    if not fresh.is_target.any():
        raise ValueError(f"no event is a target since {continuation.since}; nothing to train on")
    load_model(continuation.previous, model)
    job = ranker_job(model, replace(inputs, train=fresh), config, folder=folder)
    if continuation.prior is not None:
        continuation.prior.start(model)
        job = replace(job, loss=continuation.prior.added_to(job.loss))
    return job


def anchor(model: SequenceRanker, inputs: RankerInputs, config: RankerConfig) -> Anchor:
    """Return the anchor of a trained ranker, its Fisher information over the train split.

    Args:
        model: The trained model.
        inputs: What it was trained on.
        config: Its recipe, for the size of the batches.
    """
    batches = batches_for(model, inputs.train, config=config.batches)
    return Anchor.of(model, batches.once(), loss=lambda m, batch: multi_task_loss(m(batch), batch))
