"""Tokenise prompts: a small byte-level BPE whose special strings are one token each.

Any other tokenizer can take its place, from a local folder or by id; the special strings are then
added to its vocabulary. Byte-level means that no text is unknown.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ml.tokenizers.special_tokens import HISTORY, HISTORY_POST, PAD, SPECIAL_TOKENS

# Shapes: N prompts, S tokens of the longest.


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Say how the vocabulary is learned.

    Attributes:
        vocabulary_size: Tokens in all, special ones and the 256 bytes included.
        min_frequency: A pair of tokens is merged if it occurs so often.
        special_tokens: Strings that stay one token.
    """

    vocabulary_size: int = 3072
    min_frequency: int = 2
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS

    def __post_init__(self) -> None:
        """Check the invariants."""
        if len(set(self.special_tokens)) != len(self.special_tokens):
            raise ValueError("special_tokens holds a string twice")
        if self.vocabulary_size < 257 + len(self.special_tokens):
            raise ValueError(
                f"vocabulary_size {self.vocabulary_size} cannot hold 256 bytes, padding and "
                f"{len(self.special_tokens)} special tokens"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRows:
    """Hold right-padded token rows.

    Attributes:
        ids: Token ids, int32, padded with the tokenizer's padding id.
        lengths: Tokens of each row, int32.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]


def train_tokenizer(
    texts: Iterable[str], *, config: TokenizerConfig | None = None
) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE vocabulary; the same texts in the same order give the same one.

    Spaces beside a special token belong to it, so that prompts stay short.

    Args:
        texts: Prompts and item texts of the training period.
        config: Size of the vocabulary.
    """
    config = config or TokenizerConfig()
    special = [
        AddedToken(token, special=True, normalized=False, lstrip=True, rstrip=True)
        for token in (PAD, *config.special_tokens)
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size,
        min_frequency=config.min_frequency,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD)


def load_tokenizer(name: str | Path, *, allow_download: bool = False) -> PreTrainedTokenizerFast:
    """Load a tokenizer and make sure that it knows the special strings.

    Args:
        name: Local folder or hub id.
        allow_download: Whether an id that is not on this machine may be fetched.

    Raises:
        FileNotFoundError: If it is not on this machine and may not be fetched.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(name), local_files_only=not allow_download, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"tokenizer {name} could not be loaded ({error}); give a local folder or allow the "
            "download"
        ) from error
    known = tokenizer.get_vocab()
    missing = [token for token in (PAD, *SPECIAL_TOKENS) if token not in known]
    if missing:
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in missing])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PAD
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer as a folder of JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))


def tokenizer_texts(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Return the files of a tokenizer by name, to be kept beside a model's weights."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text() for path in sorted(Path(folder).glob("*.json"))}


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Return the id of a special token.

    Raises:
        ValueError: If the string is not one token.
    """
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{token!r} is {len(ids)} tokens, not 1; add it to the vocabulary")
    return ids[0]


def tokenize(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], *, max_tokens: int
) -> TokenRows:
    """Tokenise prompts within a budget.

    A prompt that is too long loses its oldest history posts, whole posts first; what stands
    before the history is kept. One without history is cut at its end.

    Args:
        tokenizer: From `train_tokenizer` or `load_tokenizer`.
        prompts: The prompts.
        max_tokens: Tokens per prompt at most.

    Raises:
        ValueError: If max_tokens is less than 1 or there is no prompt.
    """
    if max_tokens < 1 or not len(prompts):
        raise ValueError(f"need prompts and at least 1 token, got {len(prompts)} and {max_tokens}")
    marks = (token_id(tokenizer, HISTORY), token_id(tokenizer, HISTORY_POST))
    distinct = list(dict.fromkeys(prompts))
    encoded = tokenizer(distinct, add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    fitted = [fit_budget(ids, max_tokens=max_tokens, marks=marks) for ids in encoded]
    rows = _pad(fitted, pad=int(cast("int", tokenizer.pad_token_id)))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    index = np.fromiter((place[prompt] for prompt in prompts), dtype=np.int64, count=len(prompts))
    return TokenRows(ids=rows.ids[index], lengths=rows.lengths[index])


def fit_budget(ids: Sequence[int], *, max_tokens: int, marks: tuple[int, int]) -> list[int]:
    """Drop the oldest history posts until a prompt fits.

    Args:
        ids: Tokens of one prompt.
        max_tokens: Budget.
        marks: Token that opens the history, token that opens each post of it.
    """
    ids = list(ids)
    history, post = marks
    if len(ids) <= max_tokens or history not in ids:
        return ids[:max_tokens]
    start = ids.index(history) + 1
    head = ids[: min(start, max_tokens)]
    tail = ids[max(start, len(ids) - (max_tokens - len(head))) :] if len(head) < max_tokens else []
    if post in tail:
        tail = tail[tail.index(post) :]
    return head + tail


def _pad(rows: Sequence[Sequence[int]], *, pad: int) -> TokenRows:
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows))
    ids = np.full((len(rows), max(1, int(lengths.max()))), pad, dtype=np.int32)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
    return TokenRows(ids=ids, lengths=lengths)
