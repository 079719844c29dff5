"""Serve a prompt ranker's folder, as trained or with its experts made even."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.configuration import from_json
from ml.generative.prompt_ranker.batches import join_prompts
from ml.generative.prompt_ranker.model import PromptRanker, load
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.generative.prompt_ranker.training import RECIPE_FILE
from ml.inference.engine import score_prompts
from ml.inference.replicate_quantize import load_balanced
from ml.tokenizers.prompt_tokenizer import TokenRows, load_tokenizer, token_id, tokenize
from ml.tokenizers.special_tokens import ANSWER, QUESTION

BASE_FOLDER, BALANCED_FOLDER = "base", "balanced"


class PromptScorer:
    """Score pairs of a member prompt and an item prompt."""

    def __init__(
        self,
        model: PromptRanker,
        tokenizer: PreTrainedTokenizerFast,
        *,
        recipe: PromptRankerRecipe,
    ) -> None:
        """Wrap a model in evaluation mode."""
        self.model, self._tokenizer, self._recipe = model.eval(), tokenizer, recipe
        self.model.requires_grad_(False)

    def score(self, columns: Mapping[str, list[Any]]) -> NDArray[np.float64]:
        """Return P(yes) of each pair.

        Args:
            columns: `member_prompt` and `item_prompt`, equally long.
        """
        return score_prompts(
            self.model, self.rows(columns["member_prompt"], columns["item_prompt"])
        )

    def rows(self, members: Sequence[str], items: Sequence[str]) -> TokenRows:
        """Return the token rows of pairs, as the model was trained on them."""
        return join_prompts(
            tokenize(self._tokenizer, members, max_tokens=self._recipe.max_member_tokens),
            tokenize(self._tokenizer, items, max_tokens=self._recipe.max_item_tokens),
            question_id=token_id(self._tokenizer, QUESTION),
            answer_id=token_id(self._tokenizer, ANSWER),
            pad_id=int(cast("int", self._tokenizer.pad_token_id)),
        )


def load_scorer(folder: Path) -> PromptScorer:
    """Read a trained prompt ranker's folder."""
    return _scorer(folder, load(folder))


def load_optimized_scorer(folder: Path) -> PromptScorer:
    """Read the folder of a prompt ranker whose experts are replicated and quantised."""
    base = folder / BASE_FOLDER
    model = load_balanced(load(base), folder / BALANCED_FOLDER)
    assert isinstance(model, PromptRanker)
    return _scorer(base, model)


def _scorer(folder: Path, model: PromptRanker) -> PromptScorer:
    recipe = from_json(PromptRankerRecipe, (folder / RECIPE_FILE).read_text())
    return PromptScorer(model, load_tokenizer(folder), recipe=recipe)
