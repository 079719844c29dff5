"""Serve a prompt ranker's folder, as trained or with its experts made even."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from ml.configuration import from_json
from ml.generative.prompt_ranker.examples import PromptBudget, question_rows
from ml.generative.prompt_ranker.fit import RECIPE_FILE, TOKENIZER_FOLDER, score
from ml.generative.prompt_ranker.model import PromptRanker, load
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.inference.replicate_quantize import load_balanced
from ml.tokenizers.prompt_tokenizer import TokenRows, load_tokenizer

MEMBER_COLUMN, ITEM_COLUMN = "member_prompt", "item_prompt"


class PromptScorer:
    """Score pairs of a member prompt and an item prompt."""

    def __init__(
        self, model: PromptRanker, tokenizer: PreTrainedTokenizerFast, *, budget: PromptBudget
    ) -> None:
        """Wrap a model in evaluation mode."""
        self.model, self._tokenizer, self._budget = model.eval(), tokenizer, budget
        self.model.requires_grad_(False)

    def score(self, columns: Mapping[str, list[Any]]) -> np.ndarray:
        """Return P(yes) of each pair.

        Args:
            columns: `member_prompt` and `item_prompt`, equally long.
        """
        return score(self.model, self.rows(columns))

    def rows(self, columns: Mapping[str, list[Any]]) -> TokenRows:
        """Return the token rows of pairs, as `score` reads them."""
        return question_rows(
            self._tokenizer, columns[MEMBER_COLUMN], columns[ITEM_COLUMN], budget=self._budget
        )


def load_scorer(folder: Path) -> PromptScorer:
    """Read a trained prompt ranker's folder."""
    return _scorer(folder, load(folder))


def load_optimized_scorer(folder: Path) -> PromptScorer:
    """Read the folder of a prompt ranker whose experts are replicated and quantised."""
    model = load_balanced(load(folder / "base"), folder / "balanced")
    assert isinstance(model, PromptRanker)
    return _scorer(folder / "base", model)


def _scorer(folder: Path, model: PromptRanker) -> PromptScorer:
    recipe = from_json(PromptRankerRecipe, (folder / RECIPE_FILE).read_text())
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    return PromptScorer(model, tokenizer, budget=recipe.budget)
