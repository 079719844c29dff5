"""Semantic IDs: fitting, freezing, uniqueness and lifts."""

from pathlib import Path

import numpy as np
import pytest

from ml.tokenizers.id_quality import co_click_lift, topic_lift, uniqueness
from ml.tokenizers.residual_kmeans import (
    CodebookConfig,
    disambiguate,
    encode,
    fit_codebooks,
    load_codebooks,
    save_codebooks,
)

SMALL = CodebookConfig(num_levels=3, codes_per_level=8, num_starts=1)


def _vectors(count: int = 300, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((6, 12))
    return (centres[np.arange(count) % 6] + 0.3 * generator.standard_normal((count, 12))).astype(
        np.float32
    )


def _error(vectors: np.ndarray, levels: tuple[np.ndarray, ...], codes: np.ndarray) -> float:
    rebuilt = sum(level[codes[:, place]] for place, level in enumerate(levels))
    return float(((vectors - rebuilt) ** 2).sum(axis=1).mean())


def test_error_falls_with_levels_and_with_codes() -> None:
    vectors = _vectors()
    books = fit_codebooks(vectors, encoder="test", config=SMALL)
    codes = encode(vectors, books)
    errors = [_error(vectors, books.levels[:depth], codes[:, :depth]) for depth in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    wide = CodebookConfig(num_levels=3, codes_per_level=32, num_starts=1)
    more = fit_codebooks(vectors, encoder="test", config=wide)
    assert _error(vectors, more.levels, encode(vectors, more)) < errors[-1]


def test_encoding_picks_the_nearest_centroid_of_each_residual() -> None:
    vectors = _vectors(40)
    books = fit_codebooks(vectors, encoder="test", config=SMALL)
    codes = encode(vectors, books)
    for vector, row in zip(vectors.astype(np.float64), codes, strict=True):
        residual = vector.copy()
        for level, code in zip(books.levels, row, strict=True):
            distances = [np.sum((residual - centroid) ** 2) for centroid in level]
            assert int(np.argmin(distances)) == code
            residual -= level[code]


def test_fit_is_repeatable_and_its_version_tells_changes() -> None:
    vectors = _vectors()
    first = fit_codebooks(vectors, encoder="a", config=SMALL)
    assert fit_codebooks(vectors, encoder="a", config=SMALL).version == first.version
    assert fit_codebooks(vectors, encoder="b", config=SMALL).version != first.version
    assert fit_codebooks(_vectors(seed=1), encoder="a", config=SMALL).version != first.version


def test_later_items_are_encoded_without_moving_the_old_ones() -> None:
    old, new = _vectors(200), _vectors(50, seed=9)
    books = fit_codebooks(old, encoder="test", config=SMALL)
    alone, together = encode(old, books), encode(np.concatenate([old, new]), books)
    assert np.array_equal(together[:200], alone)
    assert np.array_equal(disambiguate(together)[:200], disambiguate(alone))


def test_disambiguator_makes_every_id_unique_in_row_order() -> None:
    codes = np.array([[1, 2], [1, 2], [1, 3], [1, 2]], dtype=np.int32)
    assert disambiguate(codes).tolist() == [0, 1, 0, 2]


def test_codebooks_survive_saving_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    books = fit_codebooks(_vectors(), encoder="test", config=SMALL)
    version = save_codebooks(books, tmp_path)
    loaded = load_codebooks(tmp_path)
    assert loaded.version == version == books.version
    assert np.array_equal(encode(_vectors(), loaded), encode(_vectors(), books))
    header = tmp_path / "codebooks.json"
    header.write_text(header.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="fit them again"):
        load_codebooks(tmp_path)


def test_fewer_distinct_vectors_than_codes_is_fine() -> None:
    vectors = np.repeat(_vectors(5), 10, axis=0)
    books = fit_codebooks(vectors, encoder="test", config=SMALL)
    codes = encode(vectors, books)
    assert len(np.unique(codes, axis=0)) == 5


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.full((3, 4), np.nan)])
def test_nothing_or_nan_to_fit_on_is_an_error(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        fit_codebooks(vectors.astype(np.float32), encoder="test")


def test_another_width_is_an_error() -> None:
    books = fit_codebooks(_vectors(), encoder="test", config=SMALL)
    with pytest.raises(ValueError, match="12 wide"):
        encode(np.zeros((2, 5), np.float32), books)


def test_uniqueness_counts_texts_once_and_lists_duplicates() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 1], [1, 0], [1, 0]], dtype=np.int32)
    texts = ["a", "b", "c", "d", "d"]
    quality = uniqueness(codes, texts)
    assert quality.num_distinct_texts == 4
    assert quality.share == pytest.approx(2 / 4)  # a and d; b and c share an ID
    assert quality.share_per_level == (pytest.approx(1 / 4), pytest.approx(2 / 4))
    assert quality.duplicates == ((3, 4),)


def test_topic_lift_is_the_number_of_topics_for_perfect_codes_and_one_for_random_ones() -> None:
    tags = np.arange(6000) % 5
    assert topic_lift(tags.astype(np.int32), tags) == pytest.approx(5, rel=0.01)
    random = np.random.default_rng(0).integers(0, 8, 6000).astype(np.int32)
    assert topic_lift(random, tags) == pytest.approx(1, abs=0.02)
    assert np.isnan(topic_lift(np.arange(4, dtype=np.int32), ["x"] * 4))


def test_topic_lift_by_hand() -> None:
    # codes pair (0,1) and (2,3); only (0,1) share a tag; chance is 2 of 6 pairs
    lift = topic_lift(np.array([0, 0, 1, 1], np.int32), ["x", "x", "y", "x"])
    assert lift == pytest.approx((1 / 2) / (3 / 6))


def test_co_click_lift_sees_taste_and_not_popularity() -> None:
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 20)
    codes_of = np.arange(50) % 5
    liked = users % 5
    loyal = np.array([generator.choice(np.flatnonzero(codes_of == code)) for code in liked])
    weights = np.arange(1, 51) ** 2
    anything = generator.choice(50, len(users), p=weights / weights.sum())
    taste = co_click_lift(users, loyal, codes_of[loyal].astype(np.int32))
    popular = co_click_lift(users, anything, codes_of[anything].astype(np.int32))
    assert taste == pytest.approx(5, rel=0.15)
    assert popular == pytest.approx(1, abs=0.05)
