"""Choose the vocabulary of a prompt model, and the first vectors of its tokens."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.tokenizers.prompt_tokenizer import TokenizerConfig, load_tokenizer, train_tokenizer
from ml.tokenizers.text_encoder import EncoderConfig, load_encoder
from ml.tokenizers.token_vectors import initial_token_vectors

# Shapes: N dates, V vocabulary, W width.

Columns = Mapping[str, Sequence[Any]]
_MOST_TEXTS = 40_000


def learn_vocabulary(
    texts: Sequence[str], *, size: int, tokenizer: str | None
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from training-period texts, or load the named tokenizer.

    Args:
        texts: Prompts; of very many, every n-th distinct one is read.
        size: Tokens of a learned vocabulary.
        tokenizer: Local folder or hub id to load instead.
    """
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    distinct = list(dict.fromkeys(texts))
    step = max(1, len(distinct) // _MOST_TEXTS)
    return train_tokenizer(distinct[::step], config=TokenizerConfig(vocabulary_size=size))


def first_token_vectors(
    tokenizer: PreTrainedTokenizerFast, *, encoder: str | None, width: int, seed: int
) -> NDArray[np.float32] | None:
    """Return first token vectors_VW of a model from scratch; None where no encoder is named."""
    if encoder is None:
        return None
    loaded = load_encoder(EncoderConfig(name=encoder))
    return initial_token_vectors(tokenizer, loaded, width=width, seed=seed)


def rows_of_split(columns: Columns, split: str) -> NDArray[np.int64]:
    """Return the rows of one split.

    Raises:
        ValueError: If there is none.
    """
    rows = np.flatnonzero(np.asarray(columns["split"]) == split)
    if not len(rows):
        raise ValueError(f"member_prompts has no row of the {split} split for this model")
    return rows


def day_numbers(dates: Sequence[date]) -> NDArray[np.int64]:
    """Return the ordinal of each date."""
    return np.fromiter((day.toordinal() for day in dates), dtype=np.int64, count=len(dates))


def training_texts(members: Columns, items: Columns) -> list[str]:
    """Return the prompts of the training period: the split's members, and items before its end."""
    validation = rows_of_split(members, "validation")
    end = day_numbers(members["event_date"])[validation].min()
    early = day_numbers(items["event_date"]) < end
    texts = [items["prompt"][row] for row in np.flatnonzero(early).tolist()]
    return [*texts, *(members["prompt"][row] for row in rows_of_split(members, "train"))]
