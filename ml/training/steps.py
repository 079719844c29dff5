"""Which batches make a step, for any number of replicas."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from ml.batches import Shard
from ml.training.job import TrainJob


class ShardedBatches(Protocol):
    """Give each worker its batches of an epoch."""

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        ...

    def epoch(self, number: int, *, shard: Shard) -> Iterator[Any]:
        """Yield one worker's batches of an epoch, None where it has none."""
        ...


def in_steps(
    job: TrainJob, batches: ShardedBatches, *, step_batches: int | None = None
) -> TrainJob:
    """Return a job that reads this replica's share of the batches, in steps of a fixed size.

    The rule of elastic trainings: a step is made of the same batches, and the learning rate is
    the same, whatever the number of replicas; fewer of them do more batches of a step each.

    Args:
        job: The job of one replica.
        batches: What it trains on.
        step_batches: Batches of a step over all replicas; one for each replica by default.
    """
    replicas = job.collectives
    shard = Shard(rank=replicas.rank, size=replicas.size, batches_per_step=step_batches)
    return replace(
        job,
        epoch=lambda number: batches.epoch(number, shard=shard),
        steps_per_epoch=batches.num_steps(shard.step_batches),
        batches_per_step=len(shard.own_places),
        shared_batches=shard.step_batches,
    )
