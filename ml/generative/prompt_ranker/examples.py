"""Examples of the prompt ranker: member, question, item and answer slot as one row of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ml.batches import Shard
from ml.tokenizers.prompt_tokenizer import TokenRows, token_id, tokenize
from ml.tokenizers.special_tokens import ANSWER, QUESTION

# Shapes: N examples, S tokens of the longest.
_ALONE = Shard()


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptBudget:
    """Bound the two halves of a prompt.

    Attributes:
        member_tokens: Tokens of the member's half at most; the oldest history is dropped first.
        item_tokens: Tokens of the item's half at most.
    """

    member_tokens: int = 96
    item_tokens: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptExamples:
    """Hold tokenised prompts with their answers.

    Attributes:
        tokens: One row per example, ending in the answer slot.
        labels: 1 where the answer is yes; int8 [N].
        users: User number, for intervals; int64 [N].
    """

    tokens: TokenRows
    labels: NDArray[np.int8]
    users: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write the arrays into an uncompressed .npz file."""
        np.savez(
            path,
            ids=self.tokens.ids_NS,
            lengths=self.tokens.lengths_N,
            labels=self.labels,
            users=self.users,
        )

    @classmethod
    def load(cls, path: Path) -> "PromptExamples":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            tokens = TokenRows(ids_NS=arrays["ids"], lengths_N=arrays["lengths"])
            return cls(tokens=tokens, labels=arrays["labels"], users=arrays["users"])


def question_rows(
    tokenizer: PreTrainedTokenizerFast,
    member_prompts: Sequence[str],
    item_prompts: Sequence[str],
    *,
    budget: PromptBudget,
) -> TokenRows:
    """Join each member prompt, the question, its item prompt and the answer slot.

    Raises:
        ValueError: If the lists differ in length or are empty.
    """
    if len(member_prompts) != len(item_prompts):
        raise ValueError(f"{len(member_prompts)} member and {len(item_prompts)} item prompts")
    member = tokenize(tokenizer, member_prompts, max_tokens=budget.member_tokens)
    item = tokenize(tokenizer, item_prompts, max_tokens=budget.item_tokens)
    question, answer = token_id(tokenizer, QUESTION), token_id(tokenizer, ANSWER)
    lengths = member.lengths_N + item.lengths_N + 2
    ids = np.full((len(lengths), int(lengths.max())), int(tokenizer.pad_token_id), np.int32)
    for row, (first, second) in enumerate(zip(member.lengths_N, item.lengths_N, strict=True)):
        ids[row, :first] = member.ids_NS[row, :first]
        ids[row, first] = question
        ids[row, first + 1 : first + 1 + second] = item.ids_NS[row, :second]
        ids[row, first + 1 + second] = answer
    return TokenRows(ids_NS=ids, lengths_N=lengths.astype(np.int32))


def token_batch(tokens: TokenRows, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` of some rows, cut to their longest."""
    lengths = tokens.lengths_N[rows]
    width = int(lengths.max())
    mask = np.arange(width)[None, :] < lengths[:, None]
    return {
        "input_ids": torch.from_numpy(tokens.ids_NS[rows, :width].astype(np.int64)),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }


def traffic(tokens: TokenRows, *, batch_size: int) -> list[dict[str, Tensor]]:
    """Return all rows in their order as serving batches."""
    starts = range(0, len(tokens.lengths_N), batch_size)
    rows = np.arange(len(tokens.lengths_N))
    return [token_batch(tokens, rows[start : start + batch_size]) for start in starts]


class PromptBatches:
    """Draw training batches of similar lengths, the same for a seed, epoch and world size."""

    def __init__(self, examples: PromptExamples, *, batch_size: int, seed: int) -> None:
        """Hold the examples.

        Raises:
            ValueError: If there are none.
        """
        if not len(examples.labels):
            raise ValueError("no training example; is member_prompts empty?")
        self._examples, self._size, self._seed = examples, batch_size, seed

    def num_batches(self, *, size: int = 1) -> int:
        """Return the batches that each of `size` workers gets in an epoch."""
        return -(-len(self._examples.labels) // (self._size * size))

    def epoch(self, number: int, *, shard: Shard = _ALONE) -> Iterator[dict[str, Tensor]]:
        """Yield one worker's batches of an epoch; all workers get equally many."""
        generator = np.random.default_rng((self._seed, number))
        noisy = self._examples.tokens.lengths_N + generator.random(len(self._examples.labels)) * 8
        total = self.num_batches(size=shard.size) * shard.size
        parts = np.array_split(np.argsort(noisy, kind="stable"), total)
        parts = [part for part in parts if len(part)]
        order = np.resize(generator.permutation(len(parts)), total)
        for place in order[shard.rank :: shard.size]:
            rows = parts[place]
            batch = token_batch(self._examples.tokens, rows)
            yield {**batch, "labels": torch.from_numpy(self._examples.labels[rows].astype(int))}
