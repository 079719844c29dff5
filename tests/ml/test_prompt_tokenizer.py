"""The prompt tokenizer: special strings, budgets, saving."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from ml.tokenizers.prompt_tokenizer import (
    TokenizerConfig,
    fit_budget,
    load_tokenizer,
    save_tokenizer,
    token_id,
    tokenize,
    train_tokenizer,
)
from ml.tokenizers.special_tokens import PAD, PERCENTILES, SPECIAL_TOKENS
from ml.tokenizers.text_encoder import load_encoder
from ml.tokenizers.token_vectors import initial_token_vectors

PROMPT = "<ST_P1> cooking <ST_P3> <ST_pct> <ST_71> <ST_/pct> <ST_P2> a slow pasta sauce"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([PROMPT, "tomato soup and bread", "chess openings"] * 5)


def test_each_special_string_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [token_id(tokenizer, token) for token in (PAD, *SPECIAL_TOKENS)]
    assert len(set(ids)) == len(ids)
    row = tokenizer.encode(PROMPT, add_special_tokens=False)
    assert sum(token in ids for token in row) == 6
    assert token_id(tokenizer, "<ST_71>") in row


def test_a_string_that_is_not_special_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="not 1"):
        token_id(tokenizer, "<ST_unheard_of>")


def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "naïve 東京 🙂 x_y"
    again = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    assert str(again).strip() == text


def test_training_is_repeatable_and_saving_keeps_the_ids(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    again = train_tokenizer([PROMPT, "tomato soup and bread", "chess openings"] * 5)
    assert again.get_vocab() == tokenizer.get_vocab()
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.encode(PROMPT) == tokenizer.encode(PROMPT)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_another_tokenizer_gets_the_special_strings(tmp_path: Path) -> None:
    plain = train_tokenizer(["some words"], config=TokenizerConfig(special_tokens=()))
    save_tokenizer(plain, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert len({token_id(loaded, token) for token in SPECIAL_TOKENS}) == len(SPECIAL_TOKENS)
    assert loaded.encode("some words") == plain.encode("some words")


def test_a_tokenizer_that_is_not_here_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")


def test_vocabulary_too_small_for_bytes_and_specials_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        TokenizerConfig(vocabulary_size=300)


def test_budget_drops_the_oldest_whole_posts_and_keeps_the_head() -> None:
    history, post = 90, 91
    row = [1, 2, history, post, 10, 11, post, 12, 13, post, 14]
    assert fit_budget(row, max_tokens=11, marks=(history, post)) == row
    assert fit_budget(row, max_tokens=9, marks=(history, post)) == [
        1, 2, history, post, 12, 13, post, 14,
    ]  # fmt: skip
    assert fit_budget(row, max_tokens=6, marks=(history, post)) == [1, 2, history, post, 14]
    assert fit_budget(row, max_tokens=2, marks=(history, post)) == [1, 2]
    assert fit_budget([5] * 20, max_tokens=4, marks=(history, post)) == [5] * 4


def test_rows_are_right_padded_in_the_order_of_the_prompts(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = tokenize(tokenizer, ["chess openings", PROMPT, "chess openings"], max_tokens=64)
    assert np.array_equal(rows.ids[0], rows.ids[2])
    assert rows.lengths[1] == rows.ids.shape[1] > rows.lengths[0]
    assert (rows.ids[0, rows.lengths[0] :] == tokenizer.pad_token_id).all()
    assert (rows.ids[0, : rows.lengths[0]] != tokenizer.pad_token_id).all()


def test_first_vectors_place_percentiles_on_a_curve_and_words_by_meaning(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    vectors = initial_token_vectors(tokenizer, load_encoder(), width=32, seed=0)
    assert vectors.shape == (len(tokenizer), 32)
    curve = vectors[tokenizer.convert_tokens_to_ids(list(PERCENTILES[1:]))]
    steps = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    assert steps.max() < 0.2 * np.linalg.norm(curve[0] - curve[-1])
    assert 0.3 < np.sqrt((vectors**2).mean()) < 2
    again = initial_token_vectors(tokenizer, load_encoder(), width=32, seed=0)
    assert np.array_equal(vectors, again)
