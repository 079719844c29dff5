"""Turn prompt pairs into the folder that a prompt ranker is trained from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml.generative.prompt_ranker.examples import PromptExamples, question_rows
from ml.generative.prompt_ranker.fit import prepare_folder
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe
from ml.tokenizers.prompt_tokenizer import TokenizerConfig, train_tokenizer
from ml.tokenizers.text_encoder import EncoderConfig, load_encoder
from ml.tokenizers.token_vectors import initial_token_vectors


def prepare_training(
    pairs: Mapping[str, Mapping[str, Any]],
    recipe: PromptRankerRecipe,
    *,
    folder: Path,
    encoder: str | None = None,
) -> Path:
    """Train the tokenizer on the train split's prompts and tokenise both splits.

    Args:
        pairs: Per split `members`, `items`, `labels` and `users`.
        recipe: The whole recipe.
        folder: An empty or absent folder.
        encoder: Text encoder that gives the first token vectors; the default if left out.

    Raises:
        ValueError: If a split has no pair.
    """
    train = pairs["train"]
    texts = sorted({*train["members"], *train["items"]})
    config = TokenizerConfig(vocabulary_size=recipe.vocabulary_size)
    tokenizer = train_tokenizer(texts, config=config)
    vectors = initial_token_vectors(
        tokenizer,
        load_encoder(EncoderConfig(name=encoder) if encoder else None),
        width=recipe.decoder.hidden_size,
        seed=recipe.training.seed,
    )
    examples = {
        split: PromptExamples(
            tokens=question_rows(tokenizer, p["members"], p["items"], budget=recipe.budget),
            labels=p["labels"],
            users=p["users"],
        )
        for split, p in pairs.items()
    }
    return prepare_folder(
        examples, recipe, tokenizer=tokenizer, token_vectors_VW=vectors, folder=folder
    )
