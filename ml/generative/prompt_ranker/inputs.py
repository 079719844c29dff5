"""What a prompt ranker is trained on, made from plain columns of the prompt tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.generative.prompt_ranker.batches import RankingExamples, join_prompts
from ml.generative.prompt_ranker.model import Vocabulary
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.retrieval.dual_encoder.batches import ItemPrompts
from ml.tokenizers.prompt_tokenizer import TokenRows, token_id, tokenize
from ml.tokenizers.special_tokens import ANSWER, NO, QUESTION, YES
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
class PromptRankerInputs:
    """Hold tokenised data and the vocabulary.

    Attributes:
        train: Examples of the train split.
        validation: Examples of the validation split.
        tokenizer: The vocabulary.
        token_vectors: First token vectors [V, W] of a model from scratch, or None.
    """

    train: RankingExamples
    validation: RankingExamples
    tokenizer: PreTrainedTokenizerFast
    token_vectors: NDArray[np.float32] | None


def prepare_inputs(
    members: Columns, items: Columns, *, config: PromptRankerRecipe
) -> PromptRankerInputs:
    """Tokenise the ranking rows of the prompt tables.

    Args:
        members: Columns of `member_prompts`, rows with `for_ranking` only.
        items: Columns of `item_prompts`.
        config: The whole recipe.

    Raises:
        ValueError: If a split has no row.
    """
    tokenizer = learn_vocabulary(
        training_texts(members, items), size=config.vocabulary_size, tokenizer=config.tokenizer
    )
    vectors = None
    if config.model.checkpoint is None:
        vectors = first_token_vectors(
            tokenizer,
            encoder=config.encoder,
            width=config.model.hidden_size,
            seed=config.training.seed,
        )
    return PromptRankerInputs(
        train=tokenise_split(members, items, tokenizer, split="train", config=config),
        validation=tokenise_split(members, items, tokenizer, split="validation", config=config),
        tokenizer=tokenizer,
        token_vectors=vectors,
    )


def tokenise_split(
    members: Columns,
    items: Columns,
    tokenizer: PreTrainedTokenizerFast,
    *,
    split: str,
    config: PromptRankerRecipe,
) -> RankingExamples:
    """Tokenise one split's prompts; an impression whose item has no prompt is left out.

    Raises:
        ValueError: If the split has no row.
    """
    rows = rows_of_split(members, split)
    prompts = ItemPrompts(
        item=np.asarray(items["item_index"], dtype=np.int64),
        day=day_numbers(items["event_date"]),
        tokens=tokenize(tokenizer, items["prompt"], max_tokens=config.max_item_tokens),
    )
    item = np.asarray(members["item_index"], dtype=np.int64)[rows]
    day = day_numbers(members["event_date"])[rows]
    asked = prompts.rows(item, day)
    rows, item, day = rows[asked >= 0], item[asked >= 0], day[asked >= 0]
    asked = asked[asked >= 0]
    told = tokenize(
        tokenizer, [members["prompt"][row] for row in rows], max_tokens=config.max_member_tokens
    )
    tokens = join_prompts(
        told,
        TokenRows(ids=prompts.tokens.ids[asked], lengths=prompts.tokens.lengths[asked]),
        question_id=token_id(tokenizer, QUESTION),
        answer_id=token_id(tokenizer, ANSWER),
        pad_id=int(cast("int", tokenizer.pad_token_id)),
    )
    users = np.asarray(members["user_id"])[rows]
    return RankingExamples(
        tokens=tokens,
        label=np.asarray(members["is_positive"])[rows].astype(np.int64),
        user=np.unique(users, return_inverse=True)[1].astype(np.int64),
        item=item,
        day=day,
    )


def answer_vocabulary(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """Return what the model must know of its tokenizer."""
    return Vocabulary(
        size=len(tokenizer), yes_id=token_id(tokenizer, YES), no_id=token_id(tokenizer, NO)
    )


def save_examples(examples: RankingExamples, path: Path) -> None:
    """Write examples as npz."""
    np.savez(
        path,
        ids=examples.tokens.ids,
        lengths=examples.tokens.lengths,
        label=examples.label,
        user=examples.user,
        item=examples.item,
        day=examples.day,
    )


def load_examples(path: Path) -> RankingExamples:
    """Read examples written by `save_examples`."""
    with np.load(path, allow_pickle=False) as file:
        return RankingExamples(
            tokens=TokenRows(ids=file["ids"], lengths=file["lengths"]),
            label=file["label"],
            user=file["user"],
            item=file["item"],
            day=file["day"],
        )
