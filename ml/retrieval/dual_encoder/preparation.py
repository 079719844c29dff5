"""Turn member and item prompts into the folder that a dual encoder is trained from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.retrieval.dual_encoder.batches import ItemPrompts, MemberExamples
from ml.retrieval.dual_encoder.fit import prepare_folder
from ml.retrieval.dual_encoder.recipes import RetrieverRecipe
from ml.tokenizers.prompt_tokenizer import TokenizerConfig, token_id, tokenize, train_tokenizer
from ml.tokenizers.special_tokens import HISTORY_POST
from ml.tokenizers.text_encoder import EncoderConfig, load_encoder
from ml.tokenizers.token_vectors import initial_token_vectors

_TOKENIZER_SAMPLE = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRows:
    """Hold retrieval examples of one split as plain values.

    Attributes:
        prompts: Member prompts.
        users: User number of each.
        items: Item index of the positive.
        days: Day number of the positive.
        negatives: Item indices shown and not engaged, newest first.
        history: Item indices engaged before, oldest first.
    """

    prompts: list[str]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.int64]
    negatives: Sequence[Sequence[int]]
    history: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRows:
    """Hold item prompts by day as plain values; days as in `MemberRows`."""

    prompts: list[str]
    items: NDArray[np.int64]
    days: NDArray[np.int64]


def prepare_training(
    members: Mapping[str, MemberRows],
    items: ItemRows,
    recipe: RetrieverRecipe,
    *,
    folder: Path,
    encoder: str | None = None,
) -> Path:
    """Train the tokenizer on the train split's prompts and tokenise everything.

    Args:
        members: Rows of train and validation.
        items: Item prompts by day.
        recipe: The whole recipe.
        folder: An empty or absent folder.
        encoder: Text encoder that gives the first token vectors; the default if left out.
    """
    last_day = int(members["train"].days.max())
    known = sorted({p for p, day in zip(items.prompts, items.days, strict=True) if day <= last_day})
    sample = members["train"].prompts[:_TOKENIZER_SAMPLE]
    config = TokenizerConfig(vocabulary_size=recipe.vocabulary_size)
    tokenizer = train_tokenizer([*sample, *known], config=config)
    vectors = initial_token_vectors(
        tokenizer,
        load_encoder(EncoderConfig(name=encoder) if encoder else None),
        width=recipe.model.hidden_size,
        seed=recipe.training.seed,
    )
    item_tokens = tokenize(tokenizer, items.prompts, max_tokens=recipe.model.max_item_tokens)
    return prepare_folder(
        {split: _examples(rows, tokenizer, recipe) for split, rows in members.items()},
        ItemPrompts(item_M=items.items, day_M=items.days, tokens=item_tokens),
        recipe=recipe,
        tokenizer=(tokenizer, vectors),
        folder=folder,
    )


def _examples(
    rows: MemberRows, tokenizer: PreTrainedTokenizerFast, recipe: RetrieverRecipe
) -> MemberExamples:
    own: dict[int, list[int]] = {}
    for user, item in zip(rows.users.tolist(), rows.items.tolist(), strict=True):
        own.setdefault(user, []).append(item)
    positives = [
        sorted({*history, *own[user]})
        for user, history in zip(rows.users.tolist(), rows.history, strict=True)
    ]
    return MemberExamples(
        tokens=tokenize(tokenizer, rows.prompts, max_tokens=recipe.model.max_member_tokens),
        item_N=rows.items,
        day_N=rows.days,
        negatives=rows.negatives,
        history=rows.history,
        positives=positives,
        post_id=token_id(tokenizer, HISTORY_POST),
    )
