"""First token vectors of a small model: words from a text encoder, percentiles on a smooth curve.

A tiny model that sees few examples should not have to learn from them what words mean, nor that
percentile 71 lies beside 72.
"""

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ml.tokenizers.special_tokens import HOURS, PERCENTILES
from ml.tokenizers.text_encoder import TextEncoder

# Shapes: V vocabulary, W model width.

_FREQUENCIES = 3


def initial_token_vectors(
    tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder, *, width: int, seed: int
) -> NDArray[np.float32]:
    """Make a first vector for every token, each of about unit mean square.

    Args:
        tokenizer: Whose vocabulary.
        encoder: Gives the vectors of words and parts of words, projected on their main axes.
        width: Model width.
        seed: Seed of the vectors of special tokens and of the projection's noise.

    Returns:
        vectors_VW, float32.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((len(tokenizer), width))
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    words = {
        row: text
        for token, row in tokenizer.get_vocab().items()
        if token not in special and (text := tokenizer.convert_tokens_to_string([token]).strip())
    }
    rows = sorted(words)
    vectors[rows] = _main_axes(encoder.encode([words[row] for row in rows]), width=width)
    for names, is_circle in ((PERCENTILES[1:], False), (HOURS, True)):
        vectors[tokenizer.convert_tokens_to_ids(list(names))] = _curve(
            len(names), width=width, is_circle=is_circle, generator=generator
        )
    return vectors.astype(np.float32)


def _main_axes(embeddings: NDArray[np.float32], *, width: int) -> NDArray[np.float64]:
    """Project on the main axes, centred, rows of unit mean square; zeros fill missing axes."""
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, keepdims=True)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    projected = np.zeros((len(embeddings), width))
    kept = min(width, len(axes))
    projected[:, :kept] = centred @ axes[:kept].T
    norms = np.sqrt((projected**2).mean(axis=1, keepdims=True))
    return projected / np.maximum(norms, 1e-6)


def _curve(
    count: int, *, width: int, is_circle: bool, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return points of a smooth random curve, of about unit mean square."""
    turns = 2 * np.pi if is_circle else np.pi
    place = np.linspace(0, turns, count, endpoint=not is_circle)
    waves = [f(place * n) for n in range(1, _FREQUENCIES + 1) for f in (np.cos, np.sin)]
    weights = generator.standard_normal((2 * _FREQUENCIES, width))
    return np.stack(waves, axis=1) @ weights / np.sqrt(_FREQUENCIES)
