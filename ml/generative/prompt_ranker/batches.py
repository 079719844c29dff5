"""Training examples of the prompt ranker: member, question and item in one row of tokens.

Member and item are cut to their budgets apart, so that the question and the item are never cut
by a long history.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.batches import Shard, step_places
from ml.inference.length_buckets import padded
from ml.tokenizers.prompt_tokenizer import TokenRows

# Shapes: N examples, S tokens.

_ALONE = Shard()
_POOL_BATCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingExamples:
    """Hold labelled prompts that end in the answer slot.

    Attributes:
        tokens: The prompts.
        label: 1 where the member engaged.
        user: User number, of these examples only.
        item: Item index in question.
        day: Day number of the impression.
    """

    tokens: TokenRows
    label: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    day: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingBatchConfig:
    """Say how batches are cut.

    Attributes:
        prompts: Prompts per batch.
        seed: Seed of the order.
    """

    prompts: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.prompts < 1:
            raise ValueError(f"prompts must be at least 1, got {self.prompts}")


def join_prompts(
    members: TokenRows, items: TokenRows, *, question_id: int, answer_id: int, pad_id: int
) -> TokenRows:
    """Write member, question, item and answer slot of each example as one row.

    Args:
        members: Member prompts.
        items: Item prompts, row by row the ones in question.
        question_id: Token between the two.
        answer_id: Token of the answer slot, always the last one of a row.
        pad_id: Padding.

    Raises:
        ValueError: If the numbers of rows differ.
    """
    if len(members.ids) != len(items.ids):
        raise ValueError(f"{len(members.ids)} member prompts for {len(items.ids)} item prompts")
    lengths = members.lengths + items.lengths + 2
    ids = np.full((len(lengths), int(lengths.max(initial=1))), pad_id, dtype=np.int32)
    for row, (own, asked) in enumerate(zip(members.lengths, items.lengths, strict=True)):
        ids[row, :own] = members.ids[row, :own]
        ids[row, own] = question_id
        ids[row, own + 1 : own + 1 + asked] = items.ids[row, :asked]
        ids[row, own + 1 + asked] = answer_id
    return TokenRows(ids=ids, lengths=lengths.astype(np.int32))


class RankingBatches:
    """Cut examples into batches, the same for a seed, an epoch and a world size."""

    def __init__(self, examples: RankingExamples, *, config: RankingBatchConfig) -> None:
        """Take the examples.

        Raises:
            ValueError: If there is none.
        """
        if not len(examples.label):
            raise ValueError("no ranking example; is member_prompts empty?")
        self._examples, self._config = examples, config

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return self.num_steps(size)

    def num_steps(self, batches_per_step: int) -> int:
        """Return the steps of an epoch whose steps have so many batches over all workers."""
        return -(-len(self._examples.label) // (self._config.prompts * batches_per_step))

    @overload
    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]: ...
    @overload
    def epoch(self, number: int, *, shard: Shard) -> Iterator[dict[str, Tensor] | None]: ...
    def epoch(self, number: int, *, shard: Shard = _ALONE) -> Iterator[dict[str, Tensor] | None]:
        """Yield one worker's shuffled batches of an epoch, each example in one batch.

        Prompts of similar length within a pool of some batches share a batch. How the examples
        are cut depends on the batches of a step, not on the workers that share them. All workers
        get equally many batches: where there are fewer examples than batches, None for the rest.

        Args:
            number: Epoch, part of the seed.
            shard: The worker.
        """
        generator = np.random.default_rng((self._config.seed, number))
        rows = generator.permutation(len(self._examples.label))
        total = self.num_steps(shard.step_batches) * shard.step_batches
        lengths = self._examples.tokens.lengths
        pools = np.array_split(rows, max(1, total // _POOL_BATCHES))
        by_length = np.concatenate([p[np.argsort(lengths[p], kind="stable")] for p in pools])
        batches = np.array_split(by_length, min(total, len(rows)))
        order = generator.permutation(len(batches))
        for place in step_places(len(batches), shard):
            yield None if place is None else self._collate(batches[order[place]])

    def _collate(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        batch = padded(self._examples.tokens, rows)
        return {**batch, "labels": torch.from_numpy(self._examples.label[rows])}
