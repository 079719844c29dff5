"""Exact search against brute force, under filters."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.retrieval.knn import ItemIndex, load_index, save_index, search


def _case(queries: int = 7, items: int = 50) -> tuple[torch.Tensor, ItemIndex]:
    generator = torch.Generator().manual_seed(0)
    index = ItemIndex(
        items=torch.randn(items, 5, generator=generator),
        item_index=100 + torch.randperm(items, generator=generator),
    )
    return torch.randn(queries, 5, generator=generator), index


def test_equals_brute_force_under_filters() -> None:
    queries, index = _case()
    generator = np.random.default_rng(0)
    allowed = torch.from_numpy(generator.random(50) < 0.6)
    excluded = [generator.choice(np.arange(90, 160), 12).tolist() for _ in range(7)]
    found = search(queries, index, k=6, excluded=excluded, allowed_N=allowed)
    for query in range(7):
        passing = [
            (-float(queries[query] @ index.items[row]), row)
            for row in range(50)
            if allowed[row] and int(index.item_index[row]) not in excluded[query]
        ]
        expected = [row for _, row in sorted(passing)[:6]]
        assert found.rows[query].tolist() == expected
        assert torch.allclose(found.scores[query], (index.items @ queries[query])[expected])


def test_ties_go_to_the_lower_row() -> None:
    index = ItemIndex(items=torch.ones(5, 2), item_index=torch.arange(5))
    assert search(torch.ones(1, 2), index, k=3).rows.tolist() == [[0, 1, 2]]


def test_too_few_passing_items_leave_empty_places() -> None:
    queries, index = _case()
    allowed = torch.zeros(50, dtype=torch.bool)
    allowed[4] = True
    found = search(queries, index, k=3, allowed_N=allowed)
    assert found.rows.tolist() == [[4, -1, -1]] * 7
    assert torch.isinf(found.scores[:, 1:]).all()


def test_k_beyond_the_catalogue_returns_all_of_it() -> None:
    queries, index = _case(items=4)
    assert search(queries, index, k=10).rows.shape == (7, 4)


def test_index_survives_saving(tmp_path: Path) -> None:
    queries, index = _case()
    save_index(index, tmp_path, version={"model": "retriever", "version": "3"})
    loaded = load_index(tmp_path)
    assert torch.equal(search(queries, loaded, k=5).rows, search(queries, index, k=5).rows)
    assert torch.equal(loaded.item_index, index.item_index)


def test_rejects_other_widths_and_lists_of_other_length() -> None:
    queries, index = _case()
    with pytest.raises(ValueError, match="cannot search"):
        search(queries[:, :4], index, k=3)
    with pytest.raises(ValueError, match="exclusion lists"):
        search(queries, index, k=3, excluded=[[1]])
    with pytest.raises(ValueError, match="embeddings for"):
        ItemIndex(items=torch.ones(5, 2), item_index=torch.arange(4))
