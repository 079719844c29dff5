"""Serve a dual encoder's folder: embed prompts, score pairs by cosine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ml.retrieval.dual_encoder.model import DualEncoder, load
from ml.retrieval.dual_encoder.training import embed_rows
from ml.tokenizers.prompt_tokenizer import load_tokenizer, tokenize


class EncoderScorer:
    """Embed members and items with one model, and score pairs of them."""

    def __init__(self, model: DualEncoder, tokenizer: PreTrainedTokenizerFast) -> None:
        """Wrap a model in evaluation mode."""
        self._model, self._tokenizer = model.eval(), tokenizer
        self._model.requires_grad_(False)

    def embed_members(self, prompts: Sequence[str]) -> Tensor:
        """Return members_BD, unit norm."""
        return self._embed(prompts, self._model.config.max_member_tokens)

    def embed_items(self, prompts: Sequence[str]) -> Tensor:
        """Return items_ND, unit norm."""
        return self._embed(prompts, self._model.config.max_item_tokens)

    def score(self, columns: Mapping[str, list[Any]]) -> np.ndarray:
        """Return the cosine of each pair.

        Args:
            columns: `member_prompt` and `item_prompt`, equally long.
        """
        members = self.embed_members(columns["member_prompt"])
        return (members * self.embed_items(columns["item_prompt"])).sum(dim=1).numpy()

    def _embed(self, prompts: Sequence[str], max_tokens: int) -> Tensor:
        return embed_rows(self._model, tokenize(self._tokenizer, prompts, max_tokens=max_tokens))


def load_scorer(folder: Path) -> EncoderScorer:
    """Read a trained dual encoder's folder."""
    return EncoderScorer(load(folder), load_tokenizer(folder))
