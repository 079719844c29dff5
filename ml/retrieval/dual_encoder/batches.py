"""Training examples of the dual encoder: members, their positives, hard negatives, and when.

A batch holds members of one stretch of time, because an item's prompt carries its numbers of
that day: candidates of one batch then compete as they did for the member. Every distinct item
prompt of a batch is encoded once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.batches import Shard
from ml.tokenizers.prompt_tokenizer import TokenRows

# Shapes: N examples, M item prompts, B members, C candidates, P known positives, S tokens.

_ALONE = Shard()


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemPrompts:
    """Hold item prompts, one per item and day.

    Attributes:
        item: Item index.
        day: Day number; any origin, the same for members.
        tokens: The prompts.
    """

    item: NDArray[np.int64]
    day: NDArray[np.int64]
    tokens: TokenRows

    def rows(self, item: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return each item's newest prompt of that day or before, else its oldest, else -1."""
        order = np.lexsort((self.day, self.item))
        if not len(order):
            return np.full(len(item), -1, dtype=np.int64)
        origin, span = self._span(day)
        keys = self.item[order] * span + (self.day[order] - origin)
        found = np.searchsorted(keys, item * span + (day - origin), side="right") - 1
        found = np.where((found < 0) | (self.item[order][found] != item), found + 1, found)
        found = np.minimum(found, len(order) - 1)
        return np.where(self.item[order][found] == item, order[found], -1)

    def _span(self, day: NDArray[np.int64]) -> tuple[int, int]:
        origin = int(min(self.day.min(), day.min(initial=self.day.min())))
        return origin, int(max(self.day.max(), day.max(initial=self.day.max()))) - origin + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberExamples:
    """Hold one positive per example.

    Attributes:
        tokens: Member prompts.
        user: User number, of these examples only.
        item: Item index of the positive.
        day: Day number of the positive.
        negatives: Item indices shown and not engaged, newest first.
        history: Item indices engaged before, oldest first; the prompt tells the newest of them.
        positives: Item indices engaged before or elsewhere in training.
        post_id: Token that opens each post of a prompt's history.
    """

    tokens: TokenRows
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    day: NDArray[np.int64]
    negatives: Sequence[Sequence[int]]
    history: Sequence[Sequence[int]]
    positives: Sequence[Sequence[int]]
    post_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalBatchConfig:
    """Say how batches are drawn.

    Attributes:
        members: Members per global batch; the workers share them out.
        hard_negatives: Hard negatives per member at most.
        history_targets: Newest posts of a member's history that are targets as well, each of the
            prompt before it; the model is causal, so they cost no further pass.
        block_batches: Batches that are drawn from one stretch of time.
        global_candidates: Whether each worker encodes the candidates of the whole global batch
            itself, so that replicas with different weights share the negatives and no embedding.
        seed: Seed of the order.
    """

    members: int = 128
    hard_negatives: int = 2
    history_targets: int = 8
    block_batches: int = 8
    global_candidates: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the invariants."""
        if (
            self.members < 2
            or self.block_batches < 1
            or min(self.hard_negatives, self.history_targets) < 0
        ):
            raise ValueError(f"need at least 2 members and 1 batch per block, got {self}")


class RetrievalBatches:
    """Draw training batches, the same for a seed, an epoch and a world size."""

    def __init__(
        self,
        members: MemberExamples,
        items: ItemPrompts,
        *,
        config: RetrievalBatchConfig,
    ) -> None:
        """Find the item prompt of every positive and hard negative.

        Raises:
            ValueError: If no positive has a prompt.
        """
        self._members, self._items, self._config = members, items, config
        self._positive = items.rows(members.item, members.day)
        self._negative = self._negative_rows()
        self._history, self._history_ends = self._history_rows()
        usable = np.flatnonzero(self._positive >= 0)
        if not len(usable):
            raise ValueError("no training example has an item prompt; is item_prompts empty?")
        by_time = usable[np.argsort(members.day[usable], kind="stable")]
        self._blocks = self._cut(by_time, config.members * config.block_batches)

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return sum(self._cuts(block, size) for block in self._blocks)

    def epoch(
        self, number: int, *, shard: Shard = _ALONE, pooled: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """Yield one worker's batches of an epoch.

        All workers get equally many, and at the same step their members come from one stretch
        of time: together they are one global batch. Unlike in the rankers, workers share out the
        members of a batch and not whole batches, because the candidates of all of them may be
        pooled: no batch is repeated, none is None, and a shard's `batches_per_step` has no say.

        Args:
            number: Epoch, part of the seed.
            shard: The worker.
            pooled: Whether the workers share their candidates, which the log-Q must know.
        """
        generator = np.random.default_rng((self._config.seed, number))
        batches = []
        for block in self._blocks:
            shuffled = generator.permutation(block)
            cuts = self._cuts(block, shard.size)
            batches += [(part, block) for part in np.array_split(shuffled, cuts)]
        for place in generator.permutation(len(batches)):
            rows, block = batches[place]
            own = np.array_split(rows, shard.size)[shard.rank]
            shared = rows if self._config.global_candidates else own
            yield self._collate(own, block, shared=shared, members=rows if pooled else shared)

    def _cuts(self, block: NDArray[np.int64], size: int) -> int:
        """Return how many global batches a block gives; none leaves a worker without members."""
        return max(1, len(block) // max(self._config.members, size))

    def _negative_rows(self) -> NDArray[np.int64]:
        width = self._config.hard_negatives
        items = np.zeros((len(self._members.item), width), dtype=np.int64)
        for row, negatives in enumerate(self._members.negatives):
            chosen = list(negatives)[:width]
            items[row, : len(chosen)] = chosen
        days = np.repeat(self._members.day, width)
        rows = self._items.rows(items.ravel(), days).reshape(items.shape)
        return np.where(items > 0, rows, -1)

    def _history_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the item prompt of each newest history post, and the tokens that precede it.

        The newest post comes first; -1 where a prompt tells fewer, or nothing stands before it.
        """
        members, width = self._members, self._config.history_targets
        items = np.zeros((len(members.item), width), dtype=np.int64)
        ends = np.zeros_like(items)
        is_post = members.tokens.ids == members.post_id
        for row, history in enumerate(members.history):
            starts = np.flatnonzero(is_post[row])[::-1][:width]
            told = list(history)[::-1][: len(starts)]
            items[row, : len(told)], ends[row, : len(told)] = told, starts[: len(told)]
        days = np.repeat(members.day, width)
        rows = self._items.rows(items.ravel(), days).reshape(items.shape)
        return np.where((items > 0) & (ends > 0), rows, -1), ends

    def _cut(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        return np.array_split(rows, max(1, round(len(rows) / size)))

    def _collate(
        self,
        rows: NDArray[np.int64],
        block: NDArray[np.int64],
        *,
        shared: NDArray[np.int64],
        members: NDArray[np.int64],
    ) -> dict[str, Tensor]:
        """Make a batch of some members against the candidates that the shared members bring."""
        lengths = self._members.tokens.lengths[rows][:, None]
        wanted = np.concatenate([self._positive[rows][:, None], self._history[rows]], axis=1)
        ends = np.concatenate([lengths, self._history_ends[rows]], axis=1)
        member, column = np.nonzero(wanted >= 0)
        targets = wanted[member, column]
        brought = self._brought(shared)
        candidates = np.unique(brought[brought >= 0])
        return {
            **_tokens("member", self._members.tokens, rows),
            **_tokens("item", self._items.tokens, candidates),
            "query_rows": torch.from_numpy(member),
            "query_ends": torch.from_numpy(ends[member, column].astype(np.int64)),
            "candidate_rows": torch.from_numpy(candidates),
            "candidate_items": torch.from_numpy(self._items.item[candidates]),
            "candidate_log_q": self._log_q(candidates, block, len(members)),
            "target": torch.from_numpy(np.searchsorted(candidates, targets)),
            "positives": torch.from_numpy(_filled([self._members.positives[r] for r in rows])),
        }

    def _log_q(
        self, candidates: NDArray[np.int64], block: NDArray[np.int64], members: int
    ) -> Tensor:
        """Return the log probability that a batch drawn from the block holds each candidate."""
        rows = self._brought(block)
        held = np.bincount(rows[rows >= 0], minlength=len(self._items.item))
        share = np.minimum(held[candidates] / len(block), 1.0)
        missed = np.power(1.0 - share, members)
        return torch.from_numpy(np.log(np.maximum(1.0 - missed, 1e-12)).astype(np.float32))

    def _brought(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the item prompts that members bring into a batch; -1 where there is none."""
        parts = [self._positive[rows][:, None], self._history[rows], self._negative[rows]]
        return np.concatenate(parts, axis=1).ravel()


def _tokens(name: str, tokens: TokenRows, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    lengths = tokens.lengths[rows]
    return {
        f"{name}_ids": torch.from_numpy(tokens.ids[rows, : lengths.max()]),
        f"{name}_lengths": torch.from_numpy(lengths),
    }


def _filled(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    width = max(1, max(len(items) for items in lists))
    out = np.zeros((len(lists), width), dtype=np.int64)
    for row, items in enumerate(lists):
        out[row, : len(items)] = items
    return out
