"""The embedded text encoder: real weights, no model hub, repeatable."""

from pathlib import Path

import numpy as np
import pytest
from wordllama import WordLlama

from ml.tokenizers.text_encoder import (
    EMPTY_TEXT,
    EncoderConfig,
    TextEncoder,
    load_encoder,
    wordllama_folder,
)

TEXTS = ["a slow pasta sauce with garlic", "the queen's gambit in chess", "garlic bread and soup"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_encoder()


def test_embeddings_are_unit_norm_float32_and_equal_the_package(encoder: TextEncoder) -> None:
    embeddings = encoder.encode(TEXTS)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (3, encoder.width) == (3, 256)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    reference = WordLlama.load(cache_dir=wordllama_folder(), disable_download=True)
    assert np.allclose(embeddings, reference.embed(TEXTS, norm=True), atol=1e-5)


def test_similar_texts_are_closer(encoder: TextEncoder) -> None:
    embeddings = encoder.encode(TEXTS)
    assert embeddings[0] @ embeddings[2] > embeddings[0] @ embeddings[1] + 0.1


def test_a_text_embeds_the_same_in_any_company(encoder: TextEncoder) -> None:
    alone = encoder.encode([TEXTS[1]])
    assert np.array_equal(encoder.encode([*TEXTS, TEXTS[1]])[[1, 3]], np.repeat(alone, 2, axis=0))


def test_blank_text_is_read_as_a_placeholder_and_nothing_gives_no_row(
    encoder: TextEncoder,
) -> None:
    assert np.array_equal(encoder.encode(["", "  "]), encoder.encode([EMPTY_TEXT] * 2))
    assert encoder.encode([]).shape == (0, 256)


def test_a_saved_model_is_loaded_from_its_folder_with_the_same_weights(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    encoder._model.save(str(tmp_path))
    loaded = load_encoder(EncoderConfig(name=str(tmp_path)))
    assert np.allclose(loaded.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert loaded.version.split("@")[1] == encoder.version.split("@")[1]


def test_a_model_that_is_not_here_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_encoder(EncoderConfig(name=str(tmp_path / "nowhere")))
