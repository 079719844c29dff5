"""What a dual encoder is trained on, made from plain columns of the prompt tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.retrieval.dual_encoder.batches import ItemPrompts, MemberExamples
from ml.retrieval.dual_encoder.recipes import RetrieverConfig
from ml.tokenizers.prompt_tokenizer import TokenRows, token_id, tokenize
from ml.tokenizers.special_tokens import HISTORY_POST
from ml.tokenizers.vocabulary import (
    Columns,
    day_numbers,
    first_token_vectors,
    learn_vocabulary,
    rows_of_split,
    training_texts,
)

# Shapes: N examples, V vocabulary, W width.


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieverInputs:
    """Hold tokenised data and the vocabulary.

    Attributes:
        train: Examples of the train split.
        validation: Examples of the validation split.
        items: Item prompts of all days.
        catalogue_day: Day whose catalogue the validation ranks.
        tokenizer: The vocabulary.
        token_vectors: First token vectors [V, W] of a model from scratch, or None.
    """

    train: MemberExamples
    validation: MemberExamples
    items: ItemPrompts
    catalogue_day: int
    tokenizer: PreTrainedTokenizerFast
    token_vectors: NDArray[np.float32] | None


def prepare_inputs(members: Columns, items: Columns, *, config: RetrieverConfig) -> RetrieverInputs:
    """Tokenise the retrieval rows of the prompt tables.

    Args:
        members: Columns of `member_prompts`, rows with `for_retrieval` only.
        items: Columns of `item_prompts`.
        config: The whole recipe.

    Raises:
        ValueError: If a split has no row.
    """
    train_rows, validation_rows = (rows_of_split(members, name) for name in ("train", "validation"))
    first_day = day_numbers(members["event_date"])[validation_rows].min()
    tokenizer = learn_vocabulary(
        training_texts(members, items), size=config.vocabulary_size, tokenizer=config.tokenizer
    )
    return RetrieverInputs(
        train=tokenise_members(members, train_rows, tokenizer, config=config),
        validation=tokenise_members(members, validation_rows, tokenizer, config=config),
        items=tokenise_items(items, tokenizer, config=config),
        catalogue_day=int(first_day),
        tokenizer=tokenizer,
        token_vectors=None
        if config.model.checkpoint is not None
        else first_token_vectors(
            tokenizer,
            encoder=config.encoder,
            width=config.model.hidden_size,
            seed=config.training.seed,
        ),
    )


def tokenise_members(
    members: Columns,
    rows: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    *,
    config: RetrieverConfig,
) -> MemberExamples:
    """Tokenise the member prompts of some rows; known positives are those of these rows."""
    users = np.unique(np.asarray(members["user_id"])[rows], return_inverse=True)[1]
    item = np.asarray(members["item_index"], dtype=np.int64)[rows]
    history = [members["history_item_indices"][row] or [] for row in rows]
    targets: dict[int, set[int]] = {}
    for user, target in zip(users.tolist(), item.tolist(), strict=True):
        targets.setdefault(user, set()).add(target)
    return MemberExamples(
        tokens=tokenize(
            tokenizer,
            [members["prompt"][row] for row in rows],
            max_tokens=config.model.max_member_tokens,
        ),
        user=users.astype(np.int64),
        item=item,
        day=day_numbers(members["event_date"])[rows],
        negatives=[members["negative_item_indices"][row] or [] for row in rows],
        history=history,
        positives=[
            sorted(targets[user] | set(told))
            for user, told in zip(users.tolist(), history, strict=True)
        ],
        post_id=token_id(tokenizer, HISTORY_POST),
    )


def tokenise_items(
    items: Columns, tokenizer: PreTrainedTokenizerFast, *, config: RetrieverConfig
) -> ItemPrompts:
    """Tokenise item prompts."""
    return ItemPrompts(
        item=np.asarray(items["item_index"], dtype=np.int64),
        day=day_numbers(items["event_date"]),
        tokens=tokenize(tokenizer, items["prompt"], max_tokens=config.model.max_item_tokens),
    )


def save_members(examples: MemberExamples, path: Path) -> None:
    """Write examples as npz, lists flattened with their lengths."""
    lists = {name: getattr(examples, name) for name in ("negatives", "history", "positives")}
    flat: dict[str, Any] = {
        key: value
        for name, rows in lists.items()
        for key, value in (
            (name, np.array([item for row in rows for item in row], dtype=np.int64)),
            (f"{name}_lengths", np.array([len(row) for row in rows], dtype=np.int64)),
        )
    }
    np.savez(
        path,
        ids=examples.tokens.ids,
        lengths=examples.tokens.lengths,
        user=examples.user,
        item=examples.item,
        day=examples.day,
        post_id=examples.post_id,
        **flat,
    )


def load_members(path: Path) -> MemberExamples:
    """Read examples written by `save_members`."""
    with np.load(path, allow_pickle=False) as file:
        lists = {
            name: _split(file[name], file[f"{name}_lengths"])
            for name in ("negatives", "history", "positives")
        }
        return MemberExamples(
            tokens=TokenRows(ids=file["ids"], lengths=file["lengths"]),
            user=file["user"],
            item=file["item"],
            day=file["day"],
            post_id=int(file["post_id"]),
            **lists,
        )


def _split(flat: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[list[int]]:
    return [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
